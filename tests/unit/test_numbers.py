"""The embedded store gives messages their numbers at the commit: each is above all that its chat has ever given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    PostMessage,
    Repeated,
)
from hubbub.chat.errors import KeyReused, NotFound
from hubbub.chat.model import ChatKey
from hubbub.embedded import store as store_module
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.writer import Writer

ONE, TWO = ChatKey("token", 1), ChatKey("token", 2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication("token", "T", 1, 2)])
    store.apply([AddChat("token", None, 3)] * 2)
    yield store
    store.close()


def post(chat: ChatKey = ONE, key: str | None = None, *, number: int = 0, body: str = "x") -> PostMessage:
    return PostMessage(chat, number, 1, "ref", "A", body, 1, key, body.encode() if key is not None else None)


def delete(number: int, chat: ChatKey = ONE) -> DeleteMessage:
    return DeleteMessage(chat, number, 1, any_sender=False)


async def stored(store: SqliteStore, chat: ChatKey = ONE) -> list[int]:
    return [message.number for message in await store.messages(chat, limit=100)][::-1]


async def test_each_chat_counts_for_itself(store: SqliteStore) -> None:
    assert store.apply([post(ONE), post(TWO), post(ONE, "a"), post(ONE), post(TWO, "a")]) == [1, 1, 2, 3, 2]
    assert store.apply([post(TWO), post(ONE)]) == [3, 4]
    assert await stored(store, ONE) == [1, 2, 3, 4]
    assert await stored(store, TWO) == [1, 2, 3]


async def test_the_number_of_a_deleted_message_is_not_given_again(store: SqliteStore, tmp_path: Path) -> None:
    assert store.apply([post(), post(), delete(2), post(), delete(3)]) == [1, 2, None, 3, None]
    assert store.apply([post(), delete(4), delete(1)]) == [4, None, None]
    assert await stored(store) == []
    again = SqliteStore(tmp_path / "hubbub.db")  # as after a start
    assert again.apply([post(), post()]) == [5, 6]
    again.close()


def test_numbers_go_on_after_one_that_was_given(store: SqliteStore) -> None:
    assert store.apply([post(number=7), post(), post(number=3), post(), post(TWO)]) == [7, 8, 3, 9, 1]
    assert store.apply([post(), post(key="key", number=20), post()]) == [10, 20, 21]


async def test_what_was_rolled_back_is_forgotten(store: SqliteStore) -> None:
    assert store.apply([post(), post()]) == [1, 2]
    with pytest.raises(Exception, match="UNIQUE"):
        store.apply([post(), AddChat("token", None, 3), post(ChatKey("token", 3)), post(number=1)])
    assert store.apply([AddChat("token", None, 3), post(ChatKey("token", 3)), post()]) == [3, 1, 3]
    assert await stored(store) == [1, 2, 3]
    assert await stored(store, ChatKey("token", 3)) == [1]


async def test_a_batch_that_is_applied_one_by_one_gets_numbers_too(store: SqliteStore) -> None:
    outcomes = Writer(store).apply([post(), post(), post(TWO), post(number=1), post(key="key"), post()])
    assert outcomes[:3] + outcomes[4:] == [1, 2, 1, 3, 4]
    assert await stored(store) == [1, 2, 3, 4]
    assert await stored(store, TWO) == [1]


async def test_a_retry_is_told_from_a_new_message(store: SqliteStore) -> None:
    def kinds(outcomes: Sequence[object]) -> list[tuple[type, object]]:
        return [(type(outcome), outcome) for outcome in outcomes]

    first = store.apply([post(), post(key="key"), post(key="key"), post()])
    assert kinds(first) == [(int, 1), (int, 2), (Repeated, 2), (int, 3)]
    later = store.apply([delete(2), post(key="key"), post(key="another")])
    assert kinds(later) == [(type(None), None), (Repeated, 2), (int, 4)]
    assert [type(outcome) for outcome in store.apply([post(key="key", body="y"), post()])] == [KeyReused, int]
    assert await stored(store) == [1, 3, 4, 5]
    assert b"%d" % Repeated(2) == b"2"


async def test_what_is_refused_takes_no_number(store: SqliteStore) -> None:
    gone: list[Command] = [post(TWO), DeleteChat(TWO), post(TWO), post(ChatKey("other", 1)), post()]
    assert [type(outcome) for outcome in store.apply(gone)] == [int, type(None), NotFound, NotFound, int]
    assert store.apply([post()]) == [2]
    last = store.apply([post(), DeleteApplication("token"), post()])
    assert (last[0], type(last[2])) == (3, NotFound)


@pytest.mark.parametrize("batch", [1, 4, 50])
async def test_the_numbers_of_forgotten_chats_are_read_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(store_module, "_KNOWN_CHATS", 2)
    store.apply([AddChat("token", None, 3)] * 7)
    chats = [ChatKey("token", number) for number in range(1, 10)]
    posts = [post(chat) for _ in range(11) for chat in chats]
    numbers = [number for at in range(0, len(posts), batch) for number in store.apply(posts[at : at + batch])]
    assert numbers == [number for number in range(1, 12) for _ in chats]
    assert await stored(store) == [*range(1, 12)]
