"""Adapters that several suites use: stores, and a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser
from hubbub.chat.model import User
from hubbub.chat.ports import Store
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.servers import Servers
from hubbub.embedded.counts import FirstsCounts, counting
from hubbub.embedded.store import SqliteStore
from hubbub.http.limits import MemoryCounts
from hubbub.loadtest.servers import Redis
from tests.peers import two_peers
from tests.ports.stores import ClusterStore
from tests.servers import new_database


class Erasable(Store, Protocol):
    """A store as every adapter has it. ``erase`` removes all that is left of deleted content."""

    def erase(self) -> None: ...


@pytest.fixture
async def servers(redis: Redis) -> AsyncIterator[Servers]:
    """One Redis, in its first generation."""
    servers = Servers([redis.url])
    assert await servers.connected(10)
    servers.clients[0].keys = Keys(1)
    yield servers
    await servers.close()


@pytest.fixture
async def counts_of_the_first() -> AsyncIterator[FirstsCounts]:
    """The counts as a process beside the first has them."""
    async with two_peers(counting(MemoryCounts()), {}) as two:
        yield FirstsCounts(two.first)


@pytest.fixture(params=["sqlite", "mysql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Erasable]:
    """A store with users 1 and 2, ``a@x`` and ``b@x``. The first owns the application ``token`` with one chat."""
    store: Erasable
    if request.param == "sqlite":
        monkeypatch.setattr(
            "hubbub.embedded.store._ERASING_S", 60.0
        )  # erases everything in one call, not for some milliseconds
        store = SqliteStore(tmp_path / "hubbub.db")
    else:
        store = ClusterStore(new_database(request.getfixturevalue("mariadb")))
    users = store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddUser("ref2", "b@x", "B", "hash", 1)])
    assert [type(user) for user in users] == [User, User]
    assert store.apply([AddApplication("token", "T", 1, 2), AddChat("token", None, 3)]) == [None, 1]
    yield store
    store.close()
