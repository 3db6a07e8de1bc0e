"""What the search index reads of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    DeleteApplication,
    DeleteMessage,
    EditMessage,
    PostMessage,
)
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.embedded.index_chats import Part
from hubbub.embedded.index_shares import Change
from hubbub.embedded.store import SqliteStore

ONE, TWO = ChatKey("T", 1), ChatKey("T", 2)
LONG = "long " * 1000


def post(chat: ChatKey, number: int, body: str = "short") -> PostMessage:
    return PostMessage(chat, number, 1, "a", "A", body, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with two chats, whose changes go back and forth between them and have gaps."""
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("a", "a@x", "A", "h", 1), AddApplication("T", "T", 1, 1), *[AddChat("T", None, 1)] * 2])
    store.apply([post(TWO, 1), post(ONE, 1), post(TWO, 2, LONG), post(ONE, 5), post(ONE, 2)])
    store.apply([post(ONE, 6), post(TWO, 3), post(ONE, 9)])
    store.apply([EditMessage(TWO, 1, 1, "edited", 2), DeleteMessage(ONE, 6, 1, any_sender=False)])
    yield store
    store.close()


def found(documents: list[Document]) -> dict[tuple[int, int], Document]:
    return {(each.chat.number, each.number): each for each in documents}  # a chat's id is its number here


def test_changes_come_in_order_and_once_each(store: SqliteStore) -> None:
    position, noted = store.following.noted(0)
    changes, _ = store.following.changes(noted)
    assert position == store.following.last_change() == 3
    places = [(2, 1), (1, 1), (2, 2), (1, 5), (1, 2), (1, 6), (2, 3), (1, 9)]
    assert [(each.chat_id, each.number) for each in changes] == places
    assert [each.size for each in changes] == [6, 5, 5000, 5, 5, 0, 5, 5]
    assert [each.sender for each in changes] == [1, 1, 1, 1, 1, 0, 1, 1]
    assert store.following.noted(position) == (position, {})


def test_a_nul_hides_nothing_of_a_message(store: SqliteStore) -> None:
    position = store.following.last_change()
    store.apply([post(ONE, 10, "a\0" + LONG), post(ONE, 11, "\0"), post(ONE, 12, "é\0b")])
    changes, documents = store.following.changes(store.following.noted(position)[1])
    assert [each.size >= size for each, size in zip(changes, (5002, 1, 3), strict=True)] == [True] * 3
    assert [place[1] for place in documents] == [11, 12], "a long text is read later, when its turn has come"


def test_all_but_long_messages_come_with_the_changes(store: SqliteStore) -> None:
    changes, at_hand = store.following.changes(store.following.noted(0)[1])
    places = [(each.chat_id, each.number) for each in changes]
    documents = found(store.following.documents(places))
    assert sorted(documents) == sorted(places)
    assert documents == at_hand | {(2, 2): Document(TWO, 2, LONG)}
    assert (2, 2) not in at_hand
    assert at_hand[2, 1] == Document(TWO, 1, "edited", edited=True)
    assert at_hand[1, 6] == Document(ONE, 6, None)


def test_messages_of_deleted_chats_keep_their_key(store: SqliteStore) -> None:
    store.apply([DeleteApplication("T")])
    while True:
        store.erase()
        if not store.following.of_chats([Part(1, ONE), Part(2, TWO)], 1)[0]:
            break
    noted = store.following.noted(0)[1]
    assert noted.pop((1, 0))
    assert noted.pop((2, 0)), "that all is erased is noted too"
    changes, at_hand = store.following.changes(noted)
    assert {Change(0, each.noted_at, each.chat_id, each.number, 0) for each in changes} == set(changes)
    assert set(at_hand.values()) == {
        Document(each, n, None)
        for each, n in ((ONE, 1), (ONE, 2), (ONE, 5), (ONE, 6), (ONE, 9), (TWO, 1), (TWO, 2), (TWO, 3))
    }


def test_forgotten_keys_are_read_again(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.following._KNOWN_CHATS", 1)
    for _ in range(3):
        assert store.following.keys([1, 2]) == {1: ONE, 2: TWO}
        assert len(store.following._keys) == 1


def test_chats_are_read_in_order_and_in_shares(store: SqliteStore) -> None:
    due, walked = [Part(1, ONE), Part(2, TWO)], list[tuple[int, int]]()
    steps = list[int]()
    while due:
        documents, parts = store.following.of_chats(due, 70)  # each message counts as 30 characters at least
        walked += [(each.chat.number, each.number) for each in documents]
        steps.append(len(documents))
        due = [each for each in parts if each.more]
    assert sorted(walked) == [(1, 1), (1, 2), (1, 5), (1, 9), (2, 1), (2, 2), (2, 3)]
    assert [number for chat, number in walked if chat == 1] == [1, 2, 5, 9]
    assert steps[0] == 3


def test_a_walk_over_all_chats_finds_those_that_have_given_many_numbers(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.embedded.following._CHATS_AT_ONCE", 1)
    store.apply([DeleteMessage(ONE, 9, 1, any_sender=False), AddChat("T", None, 1)])
    assert store.following.large_chats(0, 8) == (1, [Part(1, ONE)]), "a deleted message has had its number"
    assert store.following.large_chats(1, 8) == (2, [])
    assert store.following.large_chats(1, 2) == (2, [Part(2, TWO)])
    assert store.following.large_chats(2, 0) == (0, [])
