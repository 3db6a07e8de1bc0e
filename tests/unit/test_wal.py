"""SQLite's log stays short although deep pages are read all the time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser, DeleteMessage, PostMessage
from hubbub.chat.model import ChatKey
from hubbub.embedded import wal
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.wal import LongReads

CHAT = ChatKey("T", 1)
COUNT = 1500


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqliteStore:
    """A store with a chat that has a deep page, which takes a walk through the rows."""
    monkeypatch.setattr(wal, "MOST_BYTES", 50_000)
    monkeypatch.setattr(wal, "_AGAIN_S", 0.0)
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("a", "a@x", "A", "h", 1), AddApplication("T", "T", 1, 1), AddChat("T", None, 1)])
    store.apply([PostMessage(CHAT, number, 1, "a", "A", "x" * 100, 1) for number in range(1, COUNT + 1)])
    store.apply([DeleteMessage(CHAT, 1, 1, any_sender=False)])
    return store


def size(folder: Path) -> int:
    return (folder / "hubbub.db-wal").stat().st_size


async def test_the_log_is_emptied_between_deep_pages(store: SqliteStore, tmp_path: Path) -> None:
    assert size(tmp_path) > 50_000
    page = await store.messages(CHAT, limit=3, offset=COUNT - 10)
    assert [message.number for message in page] == [10, 9, 8]
    assert size(tmp_path) == 0
    store.apply([PostMessage(CHAT, COUNT + 1, 1, "a", "A", "more", 1)])
    assert (await store.messages(CHAT, limit=1))[0].body == "more"
    store.close()


async def test_an_open_read_keeps_its_snapshot_and_the_log_is_emptied_later(store: SqliteStore, tmp_path: Path) -> None:
    other = store._connect(read_only=True)
    other.execute("BEGIN")
    (before,) = other.execute("SELECT count(*) FROM messages").fetchone()
    store.apply([PostMessage(CHAT, COUNT + 1, 1, "a", "A", "more", 1)])
    assert len(await store.messages(CHAT, limit=3, offset=COUNT - 10)) == 3
    assert size(tmp_path) > 50_000
    store.apply([PostMessage(CHAT, COUNT + 2, 1, "a", "A", "more", 1)])
    assert other.execute("SELECT count(*) FROM messages").fetchone() == (before,)
    other.close()
    await store.messages(CHAT, limit=3, offset=COUNT - 10)
    assert size(tmp_path) == 0
    store.close()


async def test_deep_pages_are_read_one_at_a_time(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, most = 0, 0
    read = store._blocking

    def counted(sql: str, parameters: tuple[object, ...]) -> list[object]:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        found = read(sql, parameters)
        reading -= 1
        return found

    monkeypatch.setattr(store, "_blocking", counted)
    await asyncio.gather(*(store.messages(CHAT, limit=3, offset=COUNT - 10) for _ in range(5)))
    assert most == 1
    store.close()


async def test_a_deep_page_waits_for_those_of_another_process(store: SqliteStore, tmp_path: Path) -> None:
    other = LongReads(tmp_path / "hubbub.db")
    with other.turn():
        reading = asyncio.create_task(store.messages(CHAT, limit=3, offset=COUNT - 10))
        await asyncio.sleep(0.05)  # it would be read in less
        assert not reading.done()
    assert [message.number for message in await reading] == [10, 9, 8]
    other.close()


def test_a_process_that_stands_still_stops_no_other(store: SqliteStore, tmp_path: Path) -> None:
    one, other = (LongReads(tmp_path / "hubbub.db") for _ in range(2))
    with one.turn(), other.turn(within_s=0.05):
        pass
    one.close()
    other.close()
