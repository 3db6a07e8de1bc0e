"""The embedded mode's cache above its limits: its answers stay correct, and it drops entries in small steps."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    Command,
    DeleteChat,
    DeleteMessage,
    DeleteUser,
    EditMessage,
    PostMessage,
    RenameChat,
    RenameUser,
)
from hubbub.chat.feed import Feed
from hubbub.chat.model import Chat, ChatKey, User
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import _LISTS_AT_ONCE, MemoryCache

ANN = Caller(User(1, "ref", "a@x", "A", 1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "hubbub.db")
    store.apply([AddUser("ref", "a@x", "A", "hash", 1)])
    yield store
    store.close()


def new_chats(store: SqliteStore, token: str, count: int) -> list[ChatKey]:
    store.apply([AddApplication(token, "T", 1, 2), *[AddChat(token, None, 3)] * count])
    return [ChatKey(token, number) for number in range(1, count + 1)]


async def post(cache: MemoryCache, store: SqliteStore, key: ChatKey, body: str = "x") -> int:
    command = PostMessage(key, 0, 1, "ref", "A", body, 1)
    (number,) = store.apply([command])
    cache.settled(command, number)
    assert isinstance(number, int)
    return number


async def counts(cache: MemoryCache, token: str) -> dict[int, int]:
    listed = json.loads(await cache.chats(ANN, token, 100))
    return {chat["chatNumber"]: chat["messagesCount"] for chat in listed}


@pytest.mark.parametrize("max_chats", [2, 5, 20, 22, 40])
async def test_counts_are_true_however_few_chats_are_in_memory(store: SqliteStore, max_chats: int) -> None:
    cache = MemoryCache(store, Feed(), max_chats=max_chats)
    chats = new_chats(store, "one", 12)
    others = new_chats(store, "other", 12)
    for chat in (*chats[6:], *others):  # the list then has chats that are in memory and others that are not
        await post(cache, store, chat)
    expected = {chat.number: int(chat.number > 6) for chat in chats}
    for turn in range(4):
        assert await counts(cache, "one") == expected
        for chat in chats[turn % 3 :: 2]:
            await post(cache, store, chat)
            expected[chat.number] += 1
            assert await counts(cache, "one") == expected
        for chat in others:
            await post(cache, store, chat)
        assert await counts(cache, "one") == expected
    gone = DeleteMessage(chats[0], 1, 1, any_sender=False)
    cache.settled(gone, store.apply([gone])[0])
    expected[1] -= 1
    assert await counts(cache, "one") == expected
    assert await counts(cache, "other") == dict.fromkeys(range(1, 13), 5)


async def test_a_chat_whose_deletion_is_not_reported_yet_is_not_listed(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = MemoryCache(store, Feed(), max_chats=2)  # so that the list reads the three chats once more, one by one
    chats = new_chats(store, "one", 3)
    read = store.chats

    async def read_and_delete(token: str, *, offset: int, limit: int) -> list[Chat]:
        found = await read(token, offset=offset, limit=limit)
        store.apply([DeleteChat(chats[0], 1)])
        return found

    monkeypatch.setattr(store, "chats", read_and_delete)
    assert list(await counts(cache, "one")) == [3, 2]


async def test_the_keys_of_an_application_are_held_no_longer_than_its_chats(store: SqliteStore) -> None:
    """Or applications with a hundred chats each would take many times what the bound of chats allows."""
    cache = MemoryCache(store, Feed(), max_chats=12)
    applications = [f"application {number}" for number in range(12)]
    for token in applications:
        chats = new_chats(store, token, 10)
        assert len(await counts(cache, token)) == 10
        await cache.newest(ANN, chats[0], 10)
    keys = [each.newest for each in cache._applications.values() if each.newest is not None]
    assert sum(map(len, keys)) <= 12


async def test_a_list_that_is_too_large_to_keep_is_read_again(store: SqliteStore) -> None:
    cache = MemoryCache(store, Feed(), max_bytes=100)
    (chat,) = new_chats(store, "one", 1)
    for number in range(1, 5):
        await post(cache, store, chat, "x" * 200)
        assert (await cache.newest(ANN, chat, 10)).newest == number


async def test_the_cache_stays_within_its_bounds(store: SqliteStore) -> None:
    cache = MemoryCache(store, Feed(), max_bytes=50_000, max_chats=20)
    for number in range(80):
        for chat in new_chats(store, f"app{number}", 2):
            await cache.role(ANN, chat.token)
            await post(cache, store, chat, "x" * 900)
            await cache.newest(ANN, chat, 10)
    assert len(cache._chats) <= 20
    assert len(cache._listed) <= 20
    assert len(cache._applications) <= 40
    assert cache._bytes == sum(chat.weight for chat in cache._listed.values()) <= 50_000


async def test_lists_of_all_lengths_take_no_more_memory_than_one(store: SqliteStore) -> None:
    cache = MemoryCache(store, Feed())
    chats = new_chats(store, "one", 100)
    store.apply([RenameChat(chat, "x" * 255) for chat in chats])
    store.apply([PostMessage(chats[0], number, 1, "ref", "A", "x" * 10_000, 1) for number in range(1, 101)])
    await cache.newest(ANN, chats[0], 100)
    await cache.chats(ANN, "one", 100)
    tracemalloc.start()
    for limit in range(1, 101):
        await cache.newest(ANN, chats[0], limit)
        await cache.chats(ANN, "one", limit)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 2 * cache._bytes, "it was 50 times as much as the messages"


@pytest.mark.parametrize("limit", [1, 3, 25])
async def test_a_page_that_follows_another_is_the_same_as_one_made_anew(store: SqliteStore, limit: int) -> None:
    (key,) = new_chats(store, "t", 1)
    cache = MemoryCache(store, Feed())
    await cache.newest(ANN, key, limit)
    for posted in (1, 2, 1, 30, 1, 3, 4, 200, 1, 2, 26, 1):
        for _ in range(posted):
            await post(cache, store, key, "x" * random.randrange(1, 30))
        again = await MemoryCache(store, Feed()).newest(ANN, key, limit)
        assert await cache.newest(ANN, key, limit) == again
    assert cache.misses == 1


async def test_a_page_is_dropped_with_its_messages(store: SqliteStore) -> None:
    (key,) = new_chats(store, "t", 1)
    cache = MemoryCache(store, Feed())
    for _ in range(100):
        await post(cache, store, key, "x" * 5000)
    await cache.newest(ANN, key, 100)
    chat = cache._chats[key]
    for _ in range(250):
        await post(cache, store, key, "x")
        held = sum(len(encoded) for _, encoded in chat.messages or [])
        assert chat.page is None or len(chat.page.page.body) <= held + 1000
        assert chat.weight > held


async def test_entries_are_dropped_in_small_steps(store: SqliteStore) -> None:
    chats = new_chats(store, "one", 3000)
    store.apply([PostMessage(chat, 1, 1, "ref", "A", "x", 1) for chat in chats])
    cache = MemoryCache(store, Feed(), max_bytes=3000 * 2000)
    for chat in chats:
        await cache.newest(ANN, chat, 10)
    for _ in range(300):  # one chat gets half as much as all the others have
        await post(cache, store, chats[0], "y" * 9000)
        before = len(cache._listed)
        await cache.newest(ANN, chats[0], 10)
        assert before - len(cache._listed) <= _LISTS_AT_ONCE
    cache.misses = 0
    for chat in chats[1:]:
        await cache.newest(ANN, chat, 10)
    assert cache.misses < len(chats) / 2, "no more was let go of than had to be"


@pytest.mark.parametrize(
    ("change", "name"), [(RenameUser(2, "Robert"), "Robert"), (DeleteUser(2, "era", erase=False), "Deleted user")]
)
async def test_a_post_that_was_on_its_way_when_its_sender_was_renamed_has_the_new_name(
    store: SqliteStore, change: Command, name: str
) -> None:
    cache = MemoryCache(store, Feed())
    store.apply([AddUser("ref2", "b@x", "Bob", "hash", 1)])
    (chat,) = new_chats(store, "one", 1)

    async def names() -> list[str]:
        return [each["senderName"] for each in json.loads((await cache.newest(ANN, chat, 10)).body)]

    before = late = PostMessage(chat, 0, 2, "ref2", "Bob", "x", 1)
    cache.settled(before, store.apply([before])[0])
    assert await names() == ["Bob"]
    cache.settled(change, store.apply([change])[0])
    assert await names() == [name]
    cache.settled(late, store.apply([late])[0])
    assert await names() == [name, name]
    assert [each.sender_name for each in await store.messages(chat, limit=10)] == [name, name]


@pytest.mark.parametrize("change", ["post", "edit", "delete", "rename", "nothing"])
async def test_a_change_while_a_large_page_is_encoded_is_in_the_next(store: SqliteStore, change: str) -> None:
    cache = MemoryCache(store, Feed())
    (chat,) = new_chats(store, "one", 1)
    store.apply([PostMessage(chat, number, 1, "ref", "A", "\x01" * 10_000, 1) for number in range(1, 102)])
    commands: dict[str, Command] = {
        "edit": EditMessage(chat, 60, 1, "edited", 2),
        "delete": DeleteMessage(chat, 60, 1, any_sender=False),
        "rename": RenameUser(1, "Ann"),
    }
    listing = asyncio.ensure_future(cache.newest(ANN, chat, 100))
    await asyncio.sleep(0)
    assert not listing.done()
    if change == "post":
        await post(cache, store, chat)
    elif change in commands:
        cache.settled(commands[change], store.apply([commands[change]])[0])
    await listing
    expected = [
        {"number": each.number, "name": each.sender_name, "body": each.body}
        for each in await store.messages(chat, limit=100)
    ]
    for _ in range(2):  # first from the store, then from the cache
        page = json.loads((await cache.newest(ANN, chat, 100)).body)
        shown = [{"number": each["messageNumber"], "name": each["senderName"], "body": each["body"]} for each in page]
        assert shown == expected
    assert cache.misses == (1 if change == "nothing" else 2)


async def test_readers_of_one_large_page_share_it(store: SqliteStore) -> None:
    cache = MemoryCache(store, Feed())
    (chat,) = new_chats(store, "one", 1)
    store.apply([PostMessage(chat, number, 1, "ref", "A", "\x01" * 10_000, 1) for number in range(1, 102)])
    pages = await asyncio.gather(*[cache.newest(ANN, chat, 100) for _ in range(20)])
    assert len({id(page.body) for page in pages[5:]}) == 1
