"""Writers share the shards, take over from each other, and use new shards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.cluster.traffic import Traffic, everything
from tests.conftest import Person, eventually
from tests.servers import need_servers


@pytest.fixture
def stack() -> Iterator[ClusterStack]:
    need_servers()
    with ClusterStack(apis=1, writers=2, search=None, settings={"HUBBUB_SHARDS": "2"}) as stack:
        yield stack


def shards(stack: ClusterStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubbub", "shards", *arguments],
        env=os.environ | stack.settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_more_shards_lose_and_reorder_nothing(stack: ClusterStack) -> None:
    traffic = Traffic([stack.url])
    with traffic:
        traffic.wait_for(100)
        refused = shards(stack, "5")
        assert refused.returncode == 1
        assert "Stop them first" in refused.stderr
    assert shards(stack).stdout == "2\n"
    assert shards(stack, "1").returncode == 1
    stack.apis[0].stop()
    raised = shards(stack, "5")
    assert (raised.returncode, raised.stdout) == (0, "5\n"), raised.stderr
    stack.apis[0].start()
    traffic.check(stack)
    traffic.close()
    with closing(Person(stack.url)) as ann:
        chats = [ann.chat() for _ in range(20)]
        for chat in chats:
            for number in range(1, 4):
                answer = ann.post(f"{chat}/messages", json={"body": f"{number}"})
                assert answer.json() == {"messageNumber": number}
        for chat in chats:
            eventually(lambda chat=chat: bool(ann.get(chat).json()["messagesCount"] == 3))  # type: ignore[misc]
            assert everything(ann, chat) == [(1, "1"), (2, "2"), (3, "3")]


def test_the_other_writer_takes_over_when_one_dies(stack: ClusterStack) -> None:
    with closing(Person(stack.url)) as ann:
        chats = [ann.chat() for _ in range(6)]
        for turn, writer in enumerate(stack.writers, 1):
            writer.kill()
            for chat in chats:
                ann.post(f"{chat}/messages", json={"body": "x"})
            for chat in chats:
                eventually(  # the count comes from the store, so a writer wrote it
                    lambda chat=chat, turn=turn: bool(ann.get(chat).json()["messagesCount"] == turn)  # type: ignore[misc]
                )
            writer.start()
