"""Applications are split over several Redis servers by their token, and a user's sessions are known in all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from zlib import crc32

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.servers import Redis
from tests.cluster import truth
from tests.conftest import Person, eventually
from tests.servers import need_servers


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Redis]:
    need_servers()
    second = Redis(tmp_path)
    second.start()
    yield second
    second.stop()


@pytest.fixture
def stack(second: Redis) -> Iterator[ClusterStack]:
    stack = ClusterStack(apis=2, writers=1, search=None)
    for part in (*stack.apis, *stack.writers):
        part.settings["HUBBUB_REDIS_URL"] = f"{stack.redis.url},{second.url}"
    with stack:
        yield stack


def test_each_application_is_in_one_of_them(stack: ClusterStack, second: Redis) -> None:
    with closing(Person(stack.url)) as ann:
        other = httpx.Client(base_url=stack.apis[1].url + "/api/v1", cookies=dict(ann.cookies), timeout=30)
        chats = [ann.chat() for _ in range(8)]
        slots = [crc32(chat.split("/")[2].encode()) % 2 for chat in chats]
        assert set(slots) == {0, 1}, "eight tokens that are all in one half"
        for turn in range(1, 6):
            for chat in chats:
                writer, reader = (ann, other) if turn % 2 else (other, ann)
                assert writer.post(f"{chat}/messages", json={"body": "x"}).json() == {"messageNumber": turn}
                assert reader.get(f"{chat}/messages").json()[0]["messageNumber"] == turn
        second.kill()
        for chat, slot in zip(chats, slots, strict=True):
            if slot == 0:
                assert ann.post(f"{chat}/messages", json={"body": "x"}).json() == {"messageNumber": 6}
            else:
                assert ann.post(f"{chat}/messages", json={"body": "x"}).status_code == 503
                assert ann.get(f"{chat}/messages").headers["hubbub-lag"] == "queue"
        second.start()
        for chat, slot in zip(chats, slots, strict=True):
            if slot == 1:
                eventually(lambda chat=chat: ann.post(f"{chat}/messages", json={"body": "x"}).status_code == 200, 30)  # type: ignore[misc]
        truth.drained(stack)
        for chat in chats:
            assert [number for number, _ in truth.stored(stack, chat)] == list(range(1, 7))
        for at in (ann, other):  # both Redis servers know the marks of the sessions
            for chat in chats:
                assert at.get(f"{chat}/messages").status_code == 200
        assert other.delete("/auth/logout").status_code == 200
        assert {ann.get(f"{chat}/messages").status_code for chat in chats} == {401}
        other.close()


def test_a_process_with_other_redis_servers_does_not_start(stack: ClusterStack) -> None:
    part = stack.apis[1]
    part.stop()
    part.settings["HUBBUB_REDIS_URL"] = stack.redis.url
    with pytest.raises(Exception, match="use 2 Redis servers"):
        part.start()
