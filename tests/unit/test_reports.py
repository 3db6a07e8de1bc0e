"""The embedded mode's cache hears of each command after its commit, also of those that other processes accepted: late,
in order, and once. Then it answers like a cache that begins anew.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AcceptInvite,
    AddApplication,
    AddChat,
    AddInvite,
    AddUser,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    EditMessage,
    HandOver,
    Outcome,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameChat,
    RenameUser,
    Repeated,
)
from hubbub.chat.errors import NotFound
from hubbub.chat.feed import Event, Feed, Listener
from hubbub.chat.model import ChatKey, Invite, Role, User
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache

CHAT, OTHER = ChatKey("one", 1), ChatKey("one", 2)
ANN, BOB = (Caller(User(number, f"ref{number}", f"{number}@x", "A", 1)) for number in (1, 2))
INVITE = b"invite"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """The database as a serving process reads it."""
    store = SqliteStore(tmp_path / "hubbub.db")
    yield store
    store.close()


@pytest.fixture
def committer(store: SqliteStore, tmp_path: Path) -> Iterator[SqliteStore]:
    """The database as the process that commits has it."""
    committer = SqliteStore(tmp_path / "hubbub.db")
    committer.apply([AddUser(f"ref{number}", f"{number}@x", "A", "hash", 1) for number in (1, 2, 3)])
    for token in ("one", "two"):
        committer.apply([AddApplication(token, "T", 1, 2), *[AddChat(token, None, 3)] * 3])
    committer.apply([AddInvite("one", Invite("i", Role.ADMIN, 9, 0, 1, 1 << 50), INVITE, 1)])
    yield committer
    committer.close()


def post(chat: ChatKey = CHAT, body: str = "x", key: str | None = None, sender: int = 1) -> PostMessage:
    return PostMessage(chat, 0, sender, f"ref{sender}", "A", body, 1, key, None if key is None else body.encode())


async def answers(cache: MemoryCache) -> dict[str, object]:
    """All that the cache answers, of all that there may be."""
    shown: dict[str, object] = {}
    for token in ("one", "two"):
        shown[f"chats of {token}"] = json.loads(await cache.chats(ANN, token, 100))
        for user in range(1, 4):
            caller = Caller(User(user, f"ref{user}", "", "", 1))
            shown[f"role of {user} in {token}"] = await cache.role(caller, token)
        for number in range(1, 12):
            shown[f"newest of {number} in {token}"] = await newest(cache, ChatKey(token, number))
    return shown


async def newest(cache: MemoryCache, chat: ChatKey, limit: int = 10) -> object:
    try:
        return json.loads((await cache.newest(ANN, chat, limit)).body)
    except NotFound:
        return None


def any_command(rng: random.Random) -> Command:
    chat = ChatKey(rng.choice(("one", "one", "two")), rng.randint(1, 4))
    user, number = rng.randint(1, 3), rng.randint(1, 9)
    posts: list[Command] = [post(chat, sender=user), post(chat, key=f"key {number}", sender=user)] * 8
    return rng.choice(
        [
            *posts,
            EditMessage(chat, number, user, f"edited {number}", 9),
            *[DeleteMessage(chat, rng.choice((number, 1, 2)), user, any_sender=True)] * 4,
            RenameUser(user, f"name {rng.random()}"),
            PutMember(chat.token, user, rng.choice([Role.ADMIN, Role.MEMBER])),
            RemoveMember(chat.token, user),
            HandOver(chat.token, user, rng.randint(1, 3)),
            AcceptInvite("one", INVITE, user, 5),
            AddChat(chat.token, "new", 4),
            RenameChat(chat, f"title {rng.random()}"),
            rng.choice([*posts, DeleteChat(chat)]),
            rng.choice([*posts, *posts, DeleteApplication(chat.token)]),
        ]
    )


@pytest.mark.parametrize("max_chats", [2, 1000])
@pytest.mark.parametrize("seed", range(8))
async def test_after_late_reports_the_answers_are_those_of_a_new_cache(
    store: SqliteStore, committer: SqliteStore, seed: int, max_chats: int
) -> None:
    rng = random.Random(seed)
    cache = MemoryCache(store, Feed(), max_chats=max_chats)
    unreported: deque[tuple[Command, Outcome]] = deque()
    for _ in range(60):
        batch = [any_command(rng) for _ in range(rng.randint(1, 4))]
        unreported += zip(batch, committer.apply(batch), strict=True)
        for _ in range(rng.randint(0, 3)):
            chat = ChatKey(rng.choice(("one", "two")), rng.randint(1, 4))
            await newest(cache, chat, rng.choice((1, 10)))
            await cache.chats(ANN, chat.token, 10)
            await cache.role(Caller(User(rng.randint(1, 3), "", "", "", 1)), chat.token)
        while unreported and rng.random() < 0.7:
            cache.settled(*unreported.popleft())
        if rng.random() < 0.2:
            while unreported:
                cache.settled(*unreported.popleft())
            assert await answers(cache) == await answers(MemoryCache(store, Feed()))


async def test_a_retry_of_a_deleted_message_shows_it_to_nobody(store: SqliteStore, committer: SqliteStore) -> None:
    feed = Feed()
    cache = MemoryCache(store, feed)
    with feed.listen(CHAT) as listener:
        for command in (post(body="first"), post(key="key"), DeleteMessage(CHAT, 2, 1, any_sender=False)):
            cache.settled(command, committer.apply([command])[0])
        await newest(cache, CHAT)
        await listener.take(0)
        (outcome,) = committer.apply([post(key="key")])
        assert isinstance(outcome, Repeated)
        cache.settled(post(key="key"), outcome)
        assert [message["messageNumber"] for message in await newest(cache, CHAT)] == [1]  # type: ignore[attr-defined]
        assert json.loads(await cache.chats(ANN, "one", 10))[-1]["messagesCount"] == 1
        assert await listener.take(0) == ([], [])


async def heard(listener: Listener) -> list[Event]:
    return (await listener.take(5)).messages


async def test_listeners_hear_of_a_chat_that_nobody_reads(store: SqliteStore, committer: SqliteStore) -> None:
    feed = Feed()
    cache = MemoryCache(store, feed)
    with feed.listen(CHAT) as listener:
        for number in (1, 2):
            cache.settled(post(), committer.apply([post()])[0])
            ((told, item),) = await heard(listener)
            assert item is not None
            assert told == json.loads(item)["messageNumber"] == number


async def test_all_that_was_missed_is_there_after_forgetting(store: SqliteStore, committer: SqliteStore) -> None:
    feed = Feed()
    cache = MemoryCache(store, feed)
    committer.apply([post(sender=2), post(OTHER), PutMember("one", 2, Role.MEMBER)])
    before = await answers(cache)
    assert len((await cache.message(OTHER, 1)).messages) == 1
    missed: list[Command] = [
        post(),
        RenameUser(2, "Robert"),
        PutMember("one", 2, Role.ADMIN),
        RenameChat(CHAT, "Title"),
        AddChat("one", "New", 4),
        DeleteChat(OTHER),
        DeleteApplication("two"),
    ]
    with feed.listen(CHAT) as listener:
        assert [outcome for outcome in committer.apply(missed) if isinstance(outcome, Exception)] == []
        cache.forget()
        assert listener.missed
    after = await answers(cache)
    assert after == await answers(MemoryCache(store, Feed()))
    assert {name for name in after if after[name] != before[name]} >= {"chats of one", "role of 2 in one"}
    assert (await cache.message(OTHER, 1)).messages == [], "nor is its id known any more"


@pytest.mark.parametrize("gone", [DeleteChat(CHAT), DeleteApplication("one")], ids=["chat", "application"])
async def test_what_another_process_deleted_can_not_be_read(
    store: SqliteStore, committer: SqliteStore, gone: Command
) -> None:
    cache = MemoryCache(store, Feed())
    committer.apply([post()])
    assert len((await cache.messages(CHAT, limit=10)).messages) == 1
    cache.settled(gone, committer.apply([gone])[0])
    assert (await cache.messages(CHAT, limit=10)).messages == []


async def test_an_earlier_name_is_not_shown_when_a_later_one_was_missed(
    store: SqliteStore, committer: SqliteStore
) -> None:
    cache = MemoryCache(store, Feed())
    for name in ("earlier", "later"):
        rename = RenameUser(1, name)
        (outcome,) = committer.apply([rename])
        if name == "earlier":
            cache.settled(rename, outcome)
    cache.forget()
    assert await newest(cache, CHAT) == []
    posted = PostMessage(CHAT, 0, 1, "ref1", "later", "x", 1)
    cache.settled(posted, committer.apply([posted])[0])
    assert await answers(cache) == await answers(MemoryCache(store, Feed()))


async def test_a_forgotten_cache_is_kept_up_to_date(store: SqliteStore, committer: SqliteStore) -> None:
    cache = MemoryCache(store, Feed(), max_bytes=10_000)
    for _ in range(3):
        for _ in range(20):
            cache.settled(post(), committer.apply([post(body="x" * 300)])[0])
            await answers(cache)
        cache.forget()
        await answers(cache)
        assert cache._bytes == sum(chat.weight for chat in cache._listed.values())
    cache.settled(post(), committer.apply([post()])[0])
    assert await answers(cache) == await answers(MemoryCache(store, Feed()))


@pytest.mark.parametrize("meanwhile", ["a new reader", "nobody"])
async def test_a_list_in_the_making_is_not_kept_when_the_cache_is_forgotten(
    store: SqliteStore, committer: SqliteStore, meanwhile: str
) -> None:
    cache = MemoryCache(store, Feed())
    committer.apply([post(body="\x01" * 10_000) for _ in range(101)])

    async def until(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0)

    making, waiting = (asyncio.ensure_future(cache.newest(ANN, CHAT, 100)) for _ in range(2))
    await until(lambda: cache.misses == 2)
    assert not making.done()
    committer.apply([post(body="new")])
    cache.forget()
    if meanwhile == "a new reader":
        assert (await cache.newest(ANN, CHAT, 100)).newest == 102
    await making
    await waiting
    assert (await cache.newest(ANN, CHAT, 100)).newest == 102
    assert await answers(cache) == await answers(MemoryCache(store, Feed()))
