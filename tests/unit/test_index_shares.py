"""Users share the search index's work: a user who posts more than it can take in delays no other user's messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser, EditMessage, PostMessage
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.embedded.index import IndexFile, Progress, SqliteIndex
from hubbub.embedded.index_shares import MOST_CHARACTERS, Change, shared_out
from hubbub.embedded.indexer import Indexer, pause_after
from hubbub.embedded.store import SqliteStore
from tests.conftest import eventually
from tests.searching import have_all

CHAT = ChatKey("T", 1)
FLOOD = 60


def changes(sender: int, count: int, size: int) -> list[Change]:
    return [Change(sender, 1, 1, number, size) for number in range(count)]


def test_a_user_with_little_gets_it_all_and_the_others_equal_shares() -> None:
    chosen = shared_out(changes(1, 50, 1000) + changes(2, 30, 1000) + changes(3, 2, 1000), 22_000)
    assert [sum(each.sender == user for each in chosen) for user in (1, 2, 3)] == [10, 10, 2]
    assert [each.number for each in chosen if each.sender == 1] == list(range(10))


def test_one_user_alone_gets_all_and_the_longest_text_is_taken() -> None:
    assert len(shared_out(changes(1, 50, 1000), 22_000)) == 22
    assert len(shared_out(changes(1, 2, 10_000), 500)) == 1
    assert len(shared_out(changes(0, 5000, 0), 3000)) == 100  # deleted messages are work too


def test_many_short_messages_gather_and_nothing_else_waits() -> None:
    none, few, many = changes(1, 0, 76), changes(1, 20, 76), changes(1, 1000, 76)
    longer = pause_after(many, more=False)
    assert 0.2 < longer < 1
    for soon in (none, few, changes(1, 1000, 200), changes(1, 60, 4000)):
        assert pause_after(soon, more=False) < longer / 2
    assert pause_after(few, more=True) < longer / 10
    assert pause_after(changes(1, 2500, 76), more=False) < longer / 10, "there are more"


class Flooded:
    """A store in which user 1 posted many long messages and then user 2 one, and its empty index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder / "hubbub.db")
        users = [AddUser(ref, f"{ref}@x", ref, "h", 1) for ref in "ab"]
        self.store.apply([*users, AddApplication("T", "T", 1, 1), AddChat("T", None, 1)])
        self.store.apply([PostMessage(CHAT, n, 1, "a", "A", f"flood{n} " * 1100, 1) for n in range(1, FLOOD + 1)])
        self.store.apply([PostMessage(CHAT, FLOOD + 1, 2, "b", "B", "porcupine", 1)])
        index = SqliteIndex(folder, 1)
        file = index.start_anew()
        have_all(file, [CHAT])
        file.add([], Progress(0))
        index.adopt(file)
        index.close()

    def index_until(self, done: Callable[[IndexFile], bool]) -> None:
        index = SqliteIndex(self.folder, 1)
        assert index.current is not None
        indexer = Indexer(self.store.following, index, self.store.indexed)
        try:
            eventually(lambda: index.current is not None and done(index.current))
        finally:
            indexer.close()
            index.close()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[Document]]:
    """Record what is added to an index, step by step."""
    steps: list[list[Document]] = []
    add = IndexFile.add

    def recorded(file: IndexFile, documents: Iterable[Document], *more: Any, **named: Any) -> None:
        steps.append(list(documents))
        add(file, steps[-1], *more, **named)

    monkeypatch.setattr(IndexFile, "add", recorded)
    return steps


def test_a_flood_waits_in_the_index_and_delays_nobody_elses_message(
    tmp_path: Path, steps: list[list[Document]]
) -> None:
    flooded = Flooded(tmp_path)
    steps.clear()
    flooded.index_until(lambda file: bool(file.position))
    assert FLOOD + 1 in [document.number for document in steps[0]]
    flooded.store.apply([EditMessage(CHAT, FLOOD, 1, "otter", 2000)])  # it is waiting by now

    last = flooded.store.following.last_change()  # from here on the indexer's thread has these reads for itself

    def all_in(file: IndexFile) -> bool:
        return file.position == last and file.waiting_since() is None

    flooded.index_until(all_in)
    found = SqliteIndex(tmp_path, 1)
    assert found.current is not None
    for word, number in (("flo", FLOOD - 1), ("ott", FLOOD), ("por", FLOOD + 1)):
        assert found.current.find(CHAT, f'"{word}"', 1000).numbers[0] == number
    assert len(found.current.find(CHAT, '"flo"', 1000).numbers) == FLOOD - 1
    found.close()
    flooded.store.close()
    assert all(sum(len(each.body or "") for each in step) < MOST_CHARACTERS + 10_000 for step in steps)


def test_a_step_reads_a_bounded_number_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.following.MOST_CHANGES", 15)
    store = Flooded(tmp_path).store
    position = store.following.last_change()
    for commit in range(6):
        numbers = range(100 + commit * 10, 110 + commit * 10)
        store.apply([PostMessage(CHAT, number, 2, "b", "B", "otter", 1) for number in numbers])
    steps = list[list[int]]()
    for _ in range(3):
        position, noted = store.following.noted(position)
        steps.append([number for _, number in noted])
    assert steps == [list(range(start, start + 20)) for start in (100, 120, 140)], "and one more commit's"
    store.close()


def test_when_there_are_more_commits_than_one_step_reads_the_next_step_follows_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("following", "indexer"):
        monkeypatch.setattr(f"hubbub.embedded.{module}.CHANGES_AT_ONCE", 10)
    flooded = Flooded(tmp_path)
    for commit in range(45):
        flooded.store.apply([PostMessage(CHAT, 100 + commit, 2, "b", "B", "otter", 1)])
    said: list[bool] = []

    def recorded(_new: object, *, more: bool) -> float:
        said.append(more)
        return 0.0

    monkeypatch.setattr("hubbub.embedded.indexer.pause_after", recorded)
    last = flooded.store.following.last_change()
    flooded.index_until(lambda file: file.position == last)
    flooded.store.close()
    assert said[:4] == [True] * 4


def test_a_rebuild_reads_a_bounded_amount_of_text_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[list[Document]]
) -> None:
    monkeypatch.setattr("hubbub.embedded.indexer._REBUILT_AT_ONCE", 100_000)
    flooded = Flooded(tmp_path)
    (tmp_path / "search-1.db").unlink()
    steps.clear()
    index = SqliteIndex(tmp_path, 1)
    indexer = Indexer(flooded.store.following, index, flooded.store.indexed, small=FLOOD)
    eventually(lambda: index.current is not None)
    indexer.close()
    index.close()
    flooded.store.close()
    assert all(sum(len(each.body or "") for each in step) < 100_000 + 10_000 for step in steps)
    assert [each.number for step in steps for each in step] == list(range(1, FLOOD + 2))


def test_an_unexpected_error_does_not_end_the_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flooded = Flooded(tmp_path)
    add, failures = IndexFile.add, [OSError("No space left on device")]

    def failing(file: IndexFile, *what: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        add(file, *what, **more)

    monkeypatch.setattr(IndexFile, "add", failing)
    monkeypatch.setattr("hubbub.embedded.indexer._AFTER_FAULT_S", 0.01)
    flooded.index_until(lambda file: bool(file.position))
    flooded.store.close()
    assert "OSError: No space left on device" in caplog.text
    assert "The search index is being updated again." in caplog.text
