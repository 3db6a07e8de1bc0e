"""Reads that may use a replica have everything that was acknowledged, also if the replica is behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser
from hubbub.chat.model import ChatKey
from hubbub.cluster.protocol import Delivery, Post
from hubbub.loadtest.servers import MariaDb
from tests.conftest import eventually
from tests.ports.stores import ClusterStore
from tests.servers import need_servers

CHAT = ChatKey("token", 1)


class Pair:
    """A primary and its replica."""

    def __init__(self, folder: Path) -> None:
        for name in ("primary", "replica"):
            (folder / name).mkdir()
        self.primary = MariaDb(folder / "primary", ("--server-id=1", "--log-bin=binlog"))
        self.replica = MariaDb(folder / "replica", ("--server-id=2",))
        self.primary.start()
        self.replica.start()
        self.primary.root(
            "CREATE USER copy@'127.0.0.1' IDENTIFIED BY 'x'; GRANT REPLICATION SLAVE ON *.* TO copy@'127.0.0.1'"
        )
        self.replica.root(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={self.primary.port}, MASTER_USER='copy',"
            " MASTER_PASSWORD='x', MASTER_USE_GTID=slave_pos; START SLAVE"
        )

    def stop(self) -> None:
        self.replica.stop()
        self.primary.stop()

    def reads(self) -> int:
        """Return how many SELECTs the replica has run so far."""
        shown = self.replica.root(
            "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'COM_SELECT'"
        )
        return int(shown.split()[-1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    need_servers()
    pair = Pair(tmp_path_factory.mktemp("replication"))
    yield pair
    pair.stop()


def post(number: int) -> Post:
    return Post(CHAT, number, 1, "A", f"message {number}", 1000 + number)


async def test_a_replica_answers_only_when_it_is_far_enough(pair: Pair) -> None:
    store = ClusterStore(pair.primary.url(), [pair.replica.url()])
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2), AddChat("token", None, 3)])
    first = store.deliveries.apply(0, 4, [Delivery("api", 1, [post(1)])]).position

    async def newest(at: object) -> str:
        return (await store.messages(CHAT, limit=1, at=at))[0].body  # type: ignore[arg-type]

    eventually(lambda: "message 1" in pair.replica.root("SELECT body FROM hubbub.messages"))
    before = pair.reads()
    assert await newest(first) == "message 1"
    assert pair.reads() - before >= 3, "the replica was asked for its position and the rows, beside this count"
    pair.replica.root("STOP SLAVE")
    second = store.deliveries.apply(0, 4, [Delivery("api", 2, [post(2)])]).position
    assert await newest(second) == "message 2", "a replica that is behind is passed over"
    assert await newest(first) == "message 1", "and serves those who need no more than it has"
    message = await store.message(CHAT, 2, at=second)
    assert message is not None
    pair.replica.root("START SLAVE")
    eventually(lambda: "message 2" in pair.replica.root("SELECT body FROM hubbub.messages"))
    pair.replica.kill()
    assert await newest(second) == "message 2", "a replica that is gone is passed over"
    pair.replica.start()
    store.close()
