"""What every view of the hot data must do: the same suite for the memory of one process and for Redis."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from hubbub.caches.memory import MemoryCache
from hubbub.caches.redis import SCRIPTS, RedisCache
from hubbub.caches.redis_wire import RedisWire
from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    Command,
    DeleteMessage,
    EditMessage,
    Position,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameChat,
)
from hubbub.chat.feed import Feed
from hubbub.chat.model import ChatKey, Message, Role
from hubbub.chat.ports import View
from hubbub.loadtest.servers import Redis
from hubbub.stores.sqlite import SqliteStore


class Harness:
    """A view over a store. ``carry_out`` does what the way in does: a command is acknowledged when it returns.

    ``lagging`` makes the store follow only when ``catch_up`` is called, where the view can be ahead of it.
    """

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.token = secrets.token_urlsafe(8)
        self.chat = ChatKey(self.token, 1)
        self.view: View

    async def begin(self) -> None:
        self.store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddUser("ref2", "b@x", "B", "hash", 1)])
        self.store.apply([AddApplication(self.token, "T", 1, 2)])

    async def post(self, count: int = 1) -> list[int]:
        raise NotImplementedError

    async def carry_out(self, command: Command) -> None:
        raise NotImplementedError

    async def catch_up(self) -> None:
        """The store has everything from now on."""

    async def bodies(self, limit: int = 10) -> list[str]:
        page = await self.view.newest(self.chat, limit)
        return [message["body"] for message in json.loads(page.body)]


class InMemory(Harness):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.view = self.cache = MemoryCache(store, Feed())

    async def post(self, count: int = 1) -> list[int]:
        numbers = [await self.cache.next_number(self.chat) for _ in range(count)]
        for number in numbers:
            await self.carry_out(PostMessage(self.chat, number, 1, "A", f"message {number}", number))
        return numbers

    async def carry_out(self, command: Command) -> None:
        (outcome,) = self.store.apply([command])
        self.cache.settled(command, outcome)


class WithoutCopies(SqliteStore):
    """One that is always as far as can be."""

    async def message(self, key: ChatKey, number: int, *, at: Position | None = None) -> Message | None:
        return await super().message(key, number)

    async def messages(
        self,
        key: ChatKey,
        *,
        limit: int,
        before: int | None = None,
        after: int | None = None,
        offset: int = 0,
        at: Position | None = None,
    ) -> list[Message]:
        return await super().messages(key, limit=limit, before=before, after=after, offset=offset)


class InRedis(Harness):
    def __init__(self, store: WithoutCopies, wire: RedisWire) -> None:
        super().__init__(store)
        self.view = self.cache = RedisCache(wire, store)
        self.queued: list[Command] = []

    async def post(self, count: int = 1) -> list[int]:
        numbers = []
        for _ in range(count):
            slot = await self.cache.reserve(self.chat, 7)
            assert not hasattr(slot, "body_hash")
            number, epoch = slot.number, slot.epoch  # type: ignore[union-attr]
            post = PostMessage(self.chat, number, 1, "A", f"message {number}", number, epoch=epoch)
            assert await self.cache.settle(post, retried=False) == 1
            self.queued.append(post)
            numbers.append(number)
        return numbers

    async def carry_out(self, command: Command) -> None:
        if isinstance(command, EditMessage | DeleteMessage):
            command = type(command)(
                *[getattr(command, f) for f in command.__struct_fields__[:-1]], secrets.token_hex(4)
            )
            self.queued.append(command)
            await self.cache.changed(command)
            return
        guard = await self.cache.announce_new_chat(self.token)
        (outcome,) = self.store.apply([command])
        await self.cache.application_changed(self.token)
        if isinstance(command, AddChat) and isinstance(outcome, int):
            await self.cache.new_chat(ChatKey(self.token, outcome), guard)

    async def catch_up(self) -> None:
        outcomes = self.store.apply(self.queued)
        await self.cache.stored(self.chat, list(zip(self.queued, outcomes, strict=True)), Position(0, 1))  # type: ignore[arg-type]
        self.queued = []


@pytest.fixture(params=["memory", "redis"])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    store = WithoutCopies(tmp_path / "hubbub.db")
    if request.param == "memory":
        harness: Harness = InMemory(store)
        await harness.begin()
        yield harness
    else:
        server: Redis = request.getfixturevalue("redis")
        wire = RedisWire(server.url, SCRIPTS)
        assert await wire.connected(10)
        harness = InRedis(store, wire)
        await harness.begin()
        yield harness
        await wire.close()
    store.close()


@pytest.fixture(params=["at once", "later"])
def later(request: pytest.FixtureRequest) -> bool:
    """Whether the store has everything only after the view was looked at."""
    return bool(request.param == "later")


async def settle(harness: Harness, later: bool) -> None:
    if not later:
        await harness.catch_up()


def newest(numbers: Sequence[int], count: int) -> list[str]:
    return [f"message {number}" for number in sorted(numbers, reverse=True)[:count]]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 150, 450])
async def test_the_newest_page_has_every_acknowledged_message(harness: Harness, count: int, later: bool) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    numbers = await harness.post(count)
    await settle(harness, later)
    for limit in (1, 10, 100):
        page = await harness.view.newest(harness.chat, limit)
        assert await harness.bodies(limit) == newest(numbers, limit)
        assert page.more == (count > limit)
        assert (page.newest, page.oldest) == ((count, max(1, count - limit + 1)) if count else (None, None))
    more = await harness.post(3)
    assert await harness.bodies() == newest(numbers + more, 10)


async def test_pages_of_any_depth_fit_together(harness: Harness, later: bool) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    await harness.post(260)
    await harness.catch_up()
    await harness.post(90)
    await settle(harness, later)
    found: list[int] = []
    while page := await harness.view.messages(harness.chat, limit=33, offset=len(found)):
        found += [message.number for message in page]
    assert found == list(range(350, 0, -1))
    backwards: list[int] = []
    before = 351
    while page := await harness.view.messages(harness.chat, limit=40, before=before):
        backwards += [message.number for message in page]
        before = backwards[-1]
    assert backwards == found
    forwards: list[int] = []
    after = 0
    while page := await harness.view.messages(harness.chat, limit=40, after=after):
        forwards += [message.number for message in reversed(page)]
        after = forwards[-1]
    assert forwards == found[::-1]


async def test_pages_come_from_a_long_backlog_too(harness: Harness) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    numbers = await harness.post(1500)
    for number in (3, 700, 1498):
        await harness.carry_out(EditMessage(harness.chat, number, 1, "edited", 99))
        await harness.carry_out(DeleteMessage(harness.chat, number + 1, 1, any_sender=False))
    left = [number for number in numbers if number not in (4, 701, 1499)][::-1]
    assert [m.number for m in await harness.view.messages(harness.chat, limit=100)] == left[:100]
    assert [m.number for m in await harness.view.messages(harness.chat, limit=20, offset=1300)] == left[1300:1320]
    assert [m.number for m in await harness.view.messages(harness.chat, limit=5, before=703)] == [
        702,
        700,
        699,
        698,
        697,
    ]
    assert [m.number for m in await harness.view.messages(harness.chat, limit=5, after=698)] == [
        704,
        703,
        702,
        700,
        699,
    ]
    assert [m.number for m in await harness.view.messages(harness.chat, limit=5, after=1497)] == [1500, 1498]
    assert await harness.view.messages(harness.chat, limit=5, after=1500) == []
    assert [m.body for m in await harness.view.messages(harness.chat, limit=1, before=701)] == ["edited"]


@pytest.mark.parametrize("number", [1, 250, 345, 350])
async def test_changes_show_at_once_however_old_the_message(harness: Harness, number: int, later: bool) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    await harness.post(300)
    await harness.catch_up()
    await harness.post(50)
    await harness.carry_out(EditMessage(harness.chat, number, 1, "edited", 99))
    await settle(harness, later)
    message = await harness.view.message(harness.chat, number)
    assert message is not None
    assert (message.body, message.edited_at, message.sender_id) == ("edited", 99, 1)
    assert [m.body for m in await harness.view.messages(harness.chat, limit=1, before=number + 1)] == ["edited"]
    await harness.carry_out(DeleteMessage(harness.chat, number, 1, any_sender=False))
    await settle(harness, later)
    assert await harness.view.message(harness.chat, number) is None
    around = await harness.view.messages(harness.chat, limit=5, after=max(0, number - 3))
    assert number not in [m.number for m in around]
    assert "edited" not in await harness.bodies(100)
    await harness.catch_up()
    assert await harness.view.message(harness.chat, number) is None
    assert await harness.post() == [351]
    assert (await harness.bodies())[0] == "message 351"


async def test_roles_follow_every_change(harness: Harness) -> None:
    assert await harness.view.role(harness.token, 1) is Role.OWNER
    assert await harness.view.role(harness.token, 2) is None
    for role in (Role.MEMBER, Role.ADMIN):
        await harness.carry_out(PutMember(harness.token, 2, role))
        assert await harness.view.role(harness.token, 2) is role
    await harness.carry_out(RemoveMember(harness.token, 2))
    assert await harness.view.role(harness.token, 2) is None


async def test_the_list_of_chats_follows_every_change(harness: Harness) -> None:
    for number in range(1, 4):
        assert not await harness.view.exists(ChatKey(harness.token, number))
        await harness.carry_out(AddChat(harness.token, f"Chat {number}", 3))
        assert await harness.view.exists(ChatKey(harness.token, number))
        titles = [chat["title"] for chat in json.loads(await harness.view.chats(harness.token, 10))]
        assert titles == [f"Chat {n}" for n in range(number, 0, -1)]
    await harness.carry_out(RenameChat(harness.chat, "Another"))
    assert json.loads(await harness.view.chats(harness.token, 10))[-1]["title"] == "Another"
    assert len(json.loads(await harness.view.chats(harness.token, 2))) == 2
