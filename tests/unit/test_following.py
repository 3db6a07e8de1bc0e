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
    position, changes, _ = store.following.changes(0)
    assert position == store.following.last_change() == 3
    places = [(2, 1), (1, 1), (2, 2), (1, 5), (1, 2), (1, 6), (2, 3), (1, 9)]
    assert [(each.chat_id, each.number) for each in changes] == places
    assert [each.size for each in changes] == [6, 5, 5000, 5, 5, 0, 5, 5]
    assert [each.sender for each in changes] == [1, 1, 1, 1, 1, 0, 1, 1]
    assert store.following.changes(position) == (position, [], {})


def test_all_but_long_messages_come_with_the_changes(store: SqliteStore) -> None:
    _, changes, at_hand = store.following.changes(0)
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
        if not store.following.all_messages((0, 0))[1]:
            break
    _, changes, at_hand = store.following.changes(0)
    assert {Change(0, each.noted_at, each.chat_id, each.number, 0) for each in changes} == set(changes)
    assert set(at_hand.values()) == {
        Document(each, n, None)
        for each, n in ((ONE, 1), (ONE, 2), (ONE, 5), (ONE, 6), (ONE, 9), (TWO, 1), (TWO, 2), (TWO, 3))
    }


def test_a_walk_over_all_messages_is_in_order(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.following._AT_ONCE", 2)
    place, walked = (0, 0), list[tuple[int, int]]()
    while (step := store.following.all_messages(place))[1]:
        place, documents = step
        assert len(documents) <= 2
        walked += [(each.chat.number, each.number) for each in documents]
        assert place == walked[-1]
    assert walked == [(1, 1), (1, 2), (1, 5), (1, 9), (2, 1), (2, 2), (2, 3)]
