"""While the database is away, posts to live chats are accepted and shown, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.cluster import truth
from tests.conftest import Person, eventually
from tests.servers import need_servers


@pytest.fixture(scope="module")
def stack() -> Iterator[ClusterStack]:
    need_servers()
    with ClusterStack(apis=2, writers=2, search=None) as stack:
        yield stack


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_posts_are_accepted_and_shown(stack: ClusterStack, how: str) -> None:
    with closing(Person(stack.url)) as ann:
        chat = ann.chat()
        other = httpx.Client(base_url=stack.apis[1].url + "/api/v1", cookies=dict(ann.cookies), timeout=30)
        for client in (ann, other):
            assert client.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
        stack.mariadb.kill() if how == "killed" else stack.mariadb.pause()
        numbers = {}
        try:
            for turn in range(60):
                writer, reader = (ann, other) if turn % 2 else (other, ann)
                answer = writer.post(f"{chat}/messages", json={"body": f"{turn}"})
                assert answer.status_code == 200, answer.text
                number = numbers[turn] = answer.json()["messageNumber"]
                newest = reader.get(f"{chat}/messages")
                assert (newest.status_code, newest.json()[0]["messageNumber"]) == (200, number)
                assert "hubbub-lag" not in newest.headers
                assert reader.get(f"{chat}/messages/{number}").json()["body"] == f"{turn}"
            edit = {"messageNumber": numbers[3], "body": "edited"}
            assert ann.put(f"{chat}/messages", json=edit).status_code in (200, 403)
        finally:
            stack.mariadb.start() if how == "killed" else stack.mariadb.resume()
        truth.drained(stack)
        bodies = dict(truth.stored(stack, chat))
        assert all(bodies[number] in (f"{turn}", "edited") for turn, number in numbers.items())
        eventually(lambda: bool(ann.get(chat).json().get("messagesCount") == len(numbers) + 2), 30)
        other.close()


def test_new_applications_are_refused_soon_while_it_hangs(stack: ClusterStack) -> None:
    """However many are asked for: what waits is bounded. Posts go on beside them."""
    with closing(Person(stack.url)) as ann:
        chat = ann.chat()
        assert ann.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
        seconds: list[float] = []

        def add(_: int) -> int:
            begun = time.monotonic()
            with httpx.Client(base_url=stack.url + "/api/v1", cookies=dict(ann.cookies), timeout=60) as client:
                status = client.post("/applications", json={"name": "A"}).status_code
            seconds.append(time.monotonic() - begun)
            return status

        stack.mariadb.pause()
        try:
            with ThreadPoolExecutor(90) as clients:
                statuses = list(clients.map(add, range(90)))
            assert ann.post(f"{chat}/messages", json={"body": "after"}).status_code == 200
        finally:
            stack.mariadb.resume()
        assert set(statuses) == {503}
        assert max(seconds) < 15
        eventually(lambda: ann.post("/applications", json={"name": "A"}).status_code == 201, 30)
