"""Rule 4 on a real Redis: a late command changes nothing newer. Each of these cases was broken once."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser
from hubbub.chat.feed import Feed
from hubbub.chat.model import ChatKey
from hubbub.cluster.protocol import Delete, Delivery, Edit, Position, Post
from hubbub.cluster.redis.feed import RedisFeed
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.messages import RedisView
from hubbub.cluster.redis.numbers import Confirmed, Numbers, Slot, change_entry, post_entry
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.redis.stored import Stored
from hubbub.loadtest.servers import MariaDb, Redis
from tests.conftest import eventually_async
from tests.ports.stores import ClusterStore
from tests.servers import new_database

_OLD = 450  # so many messages that the first are at or below the floor


class Quiet:
    """A publisher that sends nothing, and generations that are always in use."""

    def shard_of(self, token: str) -> int:
        return 0

    def fresh(self, slot: int, generation: int) -> bool:
        return True


class Words:
    """Sends to Redis what API processes and writers send, in any order that a test needs."""

    def __init__(self, store: ClusterStore, servers: Servers, token: str) -> None:
        self.store = store
        self.chat = ChatKey(token, 1)
        quiet, pages = cast(Any, Quiet()), Pages(10)
        self.numbers = Numbers(servers, store, quiet, pages)
        self.view = RedisView(servers, store, self.numbers, quiet, Applications(), pages, quiet)
        self.stored = Stored(servers, store)
        self.positions = itertools.count(1)

    async def post(self, body: str = "x") -> Confirmed:
        slot = await self.numbers.reserve(self.chat, 1, None)
        assert isinstance(slot, Slot)
        post = Post(self.chat, slot.number, 1, "A", body, 1, epoch=slot.epoch, sender_ref="ref")
        return Confirmed(post, slot.generation, post_entry(post))

    async def edit(self, number: int, body: str) -> Confirmed:
        ordered = await self.numbers.order(self.chat, number)
        edit = Edit(self.chat, number, 1, body, 9, order=ordered.order)
        return Confirmed(edit, ordered.generation, change_entry(edit, ordered.message))

    async def delete(self, number: int) -> Confirmed:
        ordered = await self.numbers.order(self.chat, number)
        delete = Delete(self.chat, number, 1, True, order=ordered.order)
        return Confirmed(delete, ordered.generation, change_entry(delete, ordered.message))

    async def show(self, *confirmed: Confirmed) -> None:
        assert all(await self.numbers.show(0, confirmed))

    async def applied(self, *confirmed: Confirmed) -> None:
        commands = [each.command for each in confirmed]
        delivery = secrets.token_hex(8)
        (outcomes,) = self.store.deliveries.apply(0, 4, [Delivery(delivery, 1, list(commands), 0)]).outcomes
        assert outcomes is not None
        position = Position(4, 0, next(self.positions))
        await self.stored.stored(self.chat, list(zip(commands, outcomes, strict=True)), position)

    async def body(self, number: int) -> str | None:
        found = (await self.view.message(self.chat, number)).messages
        return found[0].body if found else None


@pytest.fixture
async def servers(redis: Redis) -> AsyncIterator[Servers]:
    redis.command("FLUSHALL")
    servers = Servers([redis.url])
    assert await servers.connected(10)
    servers.clients[0].keys = Keys(1)
    yield servers
    await servers.close()


@pytest.fixture
async def words(mariadb: MariaDb, servers: Servers, tmp_path: Path) -> AsyncIterator[Words]:
    store = ClusterStore(new_database(mariadb))
    words = Words(store, servers, secrets.token_hex(8))
    token = words.chat.token
    store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication(token, "T", 1, 2)])
    guard = await words.numbers.announce(token)
    store.apply([AddChat(token, None, 3)])
    await words.numbers.new_chat(words.chat, guard)
    yield words
    store.close()


async def many(words: Words) -> None:
    posts = [await words.post(f"message {n + 1}") for n in range(_OLD)]
    await words.show(*posts)
    await words.applied(*posts)


@pytest.mark.parametrize("number", [3, _OLD - 1])
async def test_a_lower_edit_that_is_shown_late_covers_nothing(words: Words, number: int) -> None:
    await many(words)
    one, two = await words.edit(number, "one"), await words.edit(number, "two")
    await words.show(two)
    await words.applied(two)
    assert await words.body(number) == "two"
    await words.show(one)
    assert await words.body(number) == "two"
    await words.applied(one)
    assert await words.body(number) == "two"


@pytest.mark.parametrize("number", [3, _OLD - 1])
async def test_an_edit_that_is_stored_first_is_seen_once_it_is_shown(words: Words, number: int) -> None:
    await many(words)
    edit = await words.edit(number, "edited")
    await words.applied(edit)
    await words.show(edit)
    assert await words.body(number) == "edited"


@pytest.mark.parametrize("number", [3, _OLD - 1])
async def test_a_deleted_message_never_comes_back(words: Words, number: int) -> None:
    await many(words)
    edit, delete = await words.edit(number, "edited"), await words.delete(number)
    await words.show(delete)
    assert await words.body(number) is None
    await words.show(edit)
    assert await words.body(number) is None
    await words.applied(delete)
    assert await words.body(number) is None
    await words.show(edit)
    await words.applied(edit)
    assert await words.body(number) is None


async def test_a_post_that_is_shown_after_its_delete_stays_deleted(words: Words) -> None:
    post = await words.post()
    await words.applied(post)
    delete = await words.delete(1)
    await words.show(delete)
    await words.show(post)
    assert await words.body(1) is None
    await words.applied(delete)
    await words.show(post)
    assert (await words.view.messages(words.chat, limit=10)).messages == []


async def test_pages_leave_out_messages_that_wait_to_be_deleted(words: Words) -> None:
    for _ in range(5):
        await many(words)
    last = 5 * _OLD
    gone = list(range(1, last - 300, 7))
    await words.show(*[await words.delete(number) for number in gone])
    expected = [number for number in range(last, 0, -1) if number not in set(gone)]
    found: list[int] = []
    while page := (await words.view.messages(words.chat, limit=100, offset=len(found))).messages:
        found += [message.number for message in page]
    assert found == expected


async def test_listeners_receive_what_was_stored_before_it_was_shown(
    words: Words, servers: Servers, redis: Redis
) -> None:
    feed = RedisFeed([redis.url], servers)
    await feed._clients[0].connected(10)
    assert isinstance(feed.feed, Feed)
    with feed.feed.listen(words.chat) as listener:
        await eventually_async(lambda: listener.missed)  # the subscription has taken effect
        assert await listener.take(5) == ([], [])
        listener.missed = False
        post = await words.post("late")
        await words.applied(post)
        await words.show(post)
        taken = await listener.take(5)
        assert [event.number for event in taken.messages] == [1]
        edit = await words.edit(1, "edited")
        await words.applied(edit)
        await words.show(edit)
        assert await listener.take(5) == ([], [1])
    await feed.close()
