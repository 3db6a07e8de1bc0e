"""What every store must do. A new adapter is one more fixture parameter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser, DeleteMessage, EditMessage, PostMessage, PutMember
from hubbub.chat.errors import Invalid, KeyReused, NotFound
from hubbub.chat.model import ChatKey, Role, User
from hubbub.chat.ports import Store
from hubbub.stores.mysql import MySqlStore
from hubbub.stores.sqlite import SqliteStore
from tests.servers import new_database

CHAT = ChatKey("token", 1)


@pytest.fixture(params=["sqlite", "mysql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: SqliteStore | MySqlStore
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "hubbub.db")
    else:
        store = MySqlStore(new_database(request.getfixturevalue("mariadb")))
    users = store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddUser("ref2", "b@x", "B", "hash", 1)])
    assert [type(user) for user in users] == [User, User]
    assert store.apply([AddApplication("token", "T", 1, 2), AddChat("token", None, 3)]) == [None, 1]
    yield store
    store.close()


def post(number: int, body: str = "x", key: str | None = None, body_hash: bytes | None = None) -> PostMessage:
    return PostMessage(CHAT, number, 1, "A", body, 1000 + number, key, body_hash)


async def numbers(store: Store, **where: int) -> list[int]:
    return [message.number for message in await store.messages(CHAT, limit=1000, **where)]


async def test_a_batch_is_there_in_order(store: Store) -> None:
    assert store.apply([post(number) for number in range(1, 251)]) == list(range(1, 251))
    assert await numbers(store) == list(range(250, 0, -1))
    assert await numbers(store, before=3) == [2, 1]
    assert await numbers(store, after=248) == [250, 249]
    assert await numbers(store, offset=249) == [1]
    chat = await store.chat(CHAT)
    assert chat is not None
    assert (chat.messages_count, chat.last_number) == (250, 250)


async def test_a_batch_is_all_or_nothing(store: Store) -> None:
    store.apply([post(1)])
    with pytest.raises(Exception, match=r"UNIQUE|Duplicate entry"):
        store.apply([post(2), post(1, "another with a number that is taken")])
    assert await numbers(store) == [1]


async def test_commands_of_one_batch_see_each_other(store: Store) -> None:
    outcomes = store.apply([post(1), EditMessage(CHAT, 1, 1, "edited", 9), post(2), DeleteMessage(CHAT, 2, 1, False)])
    assert outcomes == [1, None, 2, None]
    assert [(m.body, m.edited_at) for m in await store.messages(CHAT, limit=9)] == [("edited", 9)]


async def test_only_the_sender_edits(store: Store) -> None:
    store.apply([post(1)])
    (edited, deleted) = store.apply([EditMessage(CHAT, 1, 2, "stolen", 9), DeleteMessage(CHAT, 1, 2, False)])
    assert isinstance(edited, NotFound)
    assert isinstance(deleted, NotFound)
    assert await numbers(store) == [1]


@pytest.mark.parametrize("counted_before", [False, True])
async def test_counts_follow_deletes_whenever_they_are_folded(store: Store, counted_before: bool) -> None:
    store.apply([post(number) for number in range(1, 11)])
    if counted_before:
        store.count_messages()
    store.apply([DeleteMessage(CHAT, 10, 2, True), DeleteMessage(CHAT, 3, 2, True)])
    for _ in range(2):
        chat = await store.chat(CHAT)
        assert chat is not None
        assert (chat.messages_count, chat.last_number) == (8, 10)
        store.count_messages()


async def test_keys_are_remembered_for_good(store: Store) -> None:
    assert store.apply([post(1, key="k", body_hash=b"h"), post(2, key="k", body_hash=b"h")]) == [1, 1]
    store.apply([DeleteMessage(CHAT, 1, 1, False)])
    assert await store.posted(CHAT, 1, "k") == (1, b"h")
    assert await store.posted(CHAT, 2, "k") is None
    assert isinstance(store.apply([post(3, key="k", body_hash=b"other")])[0], KeyReused)


async def test_directory(store: Store) -> None:
    assert isinstance(store.apply([AddUser("ref3", "a@x", "Again", "hash", 1)])[0], Invalid)
    assert await store.role("token", 1) is Role.OWNER
    assert await store.role("token", 2) is None
    store.apply([PutMember("token", 2, Role.ADMIN), AddChat("token", "Two", 5)])
    assert await store.role("token", 2) is Role.ADMIN
    assert [chat.number for chat in await store.chats("token", offset=0, limit=9)] == [2, 1]
    application = await store.application("token")
    assert application is not None
    assert application.chats_count == 2


async def test_a_deep_page_is_the_same_with_and_without_missing_numbers(store: Store) -> None:
    for start in range(1, 3001, 500):
        store.apply([post(number) for number in range(start, start + 500)])
    for offset in (1001, 2500, 2995, 3000, 5000):
        assert await numbers(store, offset=offset) == list(range(3000 - offset, 0, -1))[:1000]
    store.apply([DeleteMessage(CHAT, 2990, 1, any_sender=False)])
    for offset in (1001, 2500, 2994, 3000):
        assert await numbers(store, offset=offset) == list(range(2999 - offset, 0, -1))[:1000]
