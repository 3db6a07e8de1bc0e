"""Redis gets the new name of a user who was renamed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser, RenameUser
from hubbub.chat.model import ChatKey
from hubbub.cluster.erasing import UNDER_WAY_S, Erasing, keep_erasing
from hubbub.loadtest.servers import MariaDb
from tests.conftest import eventually_async
from tests.ports.stores import ClusterStore
from tests.servers import new_database


@pytest.fixture
def store(mariadb: MariaDb) -> Iterator[ClusterStore]:
    with closing(ClusterStore(new_database(mariadb))) as store:
        store.apply([AddUser("ref", "a@x", "Ann", "hash", 1)])
        store.apply([AddApplication("token", "T", 1, 2), AddChat("token", None, 3), RenameUser(1, "Anna")])
        yield store


class Hot:
    """A Redis in which a post with the old name is shown after the first pass. Its request was accepted earlier."""

    def __init__(self) -> None:
        self.shown = ["Ann"]
        self.passes = 0

    async def renamed(self, chat: ChatKey, user_id: int, name: str) -> None:
        assert (chat, user_id) == (ChatKey("token", 1), 1)
        self.shown = [name] * len(self.shown)
        self.passes += 1
        if self.passes == 1:
            self.shown.append("Ann")

    async def gone(self, chat: ChatKey) -> None:
        raise AssertionError("nothing was deleted")


async def test_a_post_that_is_shown_after_its_sender_was_renamed_gets_the_new_name(
    store: ClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.cluster.erasing.UNDER_WAY_S", -1)
    hot, erasing = Hot(), Erasing(store.database, note_changes=False)
    running = asyncio.create_task(keep_erasing(erasing, hot))
    await eventually_async(lambda: hot.shown == ["Anna", "Anna"])
    await eventually_async(lambda: erasing.next() is None)
    running.cancel()
    assert hot.passes == 2


def test_the_last_pass_comes_when_earlier_requests_have_ended(store: ClusterStore) -> None:
    erasing = Erasing(store.database, note_changes=False)
    first = erasing.next()
    assert first is not None
    assert not first.again
    erasing.once_more(first)
    assert erasing.next() is None

    def ahead(sql: str) -> int:
        def work(cursor: Any) -> int:
            cursor.execute(sql)
            row = cursor.fetchone()
            return int(row[0]) if row else 0

        return store.database.run(work)

    assert ahead("SELECT until - UNIX_TIMESTAMP() FROM erasures") >= UNDER_WAY_S
    ahead("UPDATE erasures SET until = 1")
    last = erasing.next()
    assert last is not None
    assert last.again
    store.apply([RenameUser(1, "Annabel")])
    erasing.done(last)
    assert erasing.next() is not None, "another name has passes of its own"
