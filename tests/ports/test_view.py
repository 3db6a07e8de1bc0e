"""The suite of the View port, for the memory of one process and for Redis."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AcceptInvite,
    AddApplication,
    AddChat,
    AddInvite,
    AddUser,
    Command,
    DeleteMessage,
    EditMessage,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameChat,
)
from hubbub.chat.errors import Unavailable
from hubbub.chat.feed import Feed
from hubbub.chat.model import ChatKey, Invite, Message, Role, User
from hubbub.chat.ports import View
from hubbub.cluster.protocol import Delete, Edit, Position, Post
from hubbub.cluster.redis import connection
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.messages import RedisView
from hubbub.cluster.redis.numbers import Claim, Confirmed, Numbers, Slot, change_entry, post_entry
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.redis.stored import Stored
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.loadtest.servers import Redis


def caller(user_id: int) -> Caller:
    return Caller(User(user_id, "ref", "a@x", "A", 1))


CALLER = caller(1)


class Harness:
    """A view over a store. A command is acknowledged when ``carry_out`` returns, as by an intake.

    Where the view can be ahead of the store, the store has messages only after ``catch_up``.
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
        """Bring everything into the store."""

    async def bodies(self, limit: int = 10) -> list[str]:
        page = await self.view.newest(CALLER, self.chat, limit)
        return [message["body"] for message in json.loads(page.body)]


class InMemory(Harness):
    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.view = self.cache = MemoryCache(store, Feed())
        self.posted = 0

    async def post(self, count: int = 1) -> list[int]:
        numbers = [*range(self.posted + 1, self.posted + count + 1)]
        for number in numbers:
            await self.carry_out(PostMessage(self.chat, 0, 1, "ref", "A", f"message {number}", number))
        self.posted += count
        return numbers

    async def carry_out(self, command: Command) -> None:
        (outcome,) = self.store.apply([command])
        self.cache.settled(command, outcome)


class WithoutCopies(SqliteStore):
    """A store with a cluster's methods that is always up to date and has no orders."""

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

    async def numbered(self, key: ChatKey, numbers: Sequence[int], *, at: Position | None = None) -> list[Message]:
        return await super().numbered(key, numbers)

    async def with_refs(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages)

    async def ordered(self, key: ChatKey, numbers: Sequence[int]) -> list[tuple[Message, int]]:
        return [(message, 1 << 60) for message in await super().numbered(key, numbers)]


class Quiet:
    """A publisher with an empty queue, and generations that are always in use."""

    def shard_of(self, token: str) -> int:
        return 0

    def fresh(self, slot: int, generation: int) -> bool:
        return True

    async def vouch(self, slot: int, generation: int) -> bool:
        return True


class InRedis(Harness):
    def __init__(self, store: WithoutCopies, servers: Servers) -> None:
        super().__init__(store)
        quiet, pages = cast(Any, Quiet()), Pages(10)
        self.numbers = Numbers(servers, cast(Any, store), quiet, pages)
        self.view = RedisView(servers, cast(Any, store), self.numbers, quiet, Applications(), pages, quiet)
        self.stored = Stored(servers, cast(Any, store))
        self.queued: list[tuple[Command, Post | Edit | Delete]] = []
        self.transactions = itertools.count(1)

    async def post(self, count: int = 1) -> list[int]:
        numbers = []
        for _ in range(count):
            slot = await self.numbers.reserve(self.chat, 7, None)
            assert isinstance(slot, Slot)
            post = Post(
                self.chat,
                slot.number,
                1,
                "A",
                f"message {slot.number}",
                slot.number,
                epoch=slot.epoch,
                sender_ref="ref",
            )
            assert await self.numbers.show(0, [Confirmed(post, slot.generation, post_entry(post))]) == [True]
            posted = PostMessage(self.chat, slot.number, 1, "ref", "A", post.body, slot.number)
            self.queued.append((posted, post))
            numbers.append(slot.number)
        return numbers

    async def carry_out(self, command: Command) -> None:
        if isinstance(command, EditMessage | DeleteMessage):
            ordered = await self.numbers.order(self.chat, command.number)
            change: Edit | Delete = Delete(self.chat, command.number, 1, True, order=ordered.order)
            if isinstance(command, EditMessage):
                change = Edit(self.chat, command.number, 1, command.body, command.edited_at, order=ordered.order)
            confirmed = Confirmed(change, ordered.generation, change_entry(change, ordered.message))
            assert await self.numbers.show(0, [confirmed]) == [True]
            self.queued.append((command, change))
            return
        guard = await self.numbers.announce(self.token)
        (outcome,) = self.store.apply([command])
        await self.numbers.application_changed(self.token)
        if isinstance(command, AddChat) and isinstance(outcome, int):
            await self.numbers.new_chat(ChatKey(self.token, outcome), guard)

    async def catch_up(self) -> None:
        outcomes = self.store.apply([command for command, _ in self.queued])
        queued = [each for _, each in self.queued]
        position = Position(4, 0, next(self.transactions))
        await self.stored.stored(self.chat, list(zip(queued, outcomes, strict=True)), position)
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
        servers = Servers([server.url])
        assert await servers.connected(10)
        servers.clients[0].keys = Keys(1)
        harness = InRedis(store, servers)
        await harness.begin()
        yield harness
        await servers.close()
    store.close()


@pytest.fixture(params=["at once", "later"])
def later(request: pytest.FixtureRequest) -> bool:
    """Whether the store gets everything only after the view was read."""
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
        page = await harness.view.newest(CALLER, harness.chat, limit)
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
    while page := (await harness.view.messages(harness.chat, limit=33, offset=len(found))).messages:
        found += [message.number for message in page]
    assert found == list(range(350, 0, -1))
    backwards: list[int] = []
    before = 351
    while page := (await harness.view.messages(harness.chat, limit=40, before=before)).messages:
        backwards += [message.number for message in page]
        before = backwards[-1]
    assert backwards == found
    forwards: list[int] = []
    after = 0
    while page := (await harness.view.messages(harness.chat, limit=40, after=after)).messages:
        forwards += [message.number for message in reversed(page)]
        after = forwards[-1]
    assert forwards == found[::-1]


async def test_every_read_has_the_senders_public_id(harness: Harness, later: bool) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    await harness.post(230)
    await harness.catch_up()
    await harness.post(2)
    await harness.carry_out(EditMessage(harness.chat, 231, 1, "edited", 99))
    await settle(harness, later)
    page = json.loads((await harness.view.newest(CALLER, harness.chat, 100)).body)
    assert [message["senderId"] for message in page] == ["ref"] * 100
    view, chat = harness.view, harness.chat
    for shown in (
        await view.messages(chat, limit=232, before=233),
        await view.messages(chat, limit=232, after=0),
        await view.numbered(chat, list(range(1, 233))),
    ):
        assert [message.sender_ref for message in shown.messages] == ["ref"] * 232


async def test_pages_come_from_a_long_backlog_too(harness: Harness) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    numbers = await harness.post(1500)
    for number in (3, 700, 1498):
        await harness.carry_out(EditMessage(harness.chat, number, 1, "edited", 99))
        await harness.carry_out(DeleteMessage(harness.chat, number + 1, 1, any_sender=False))
    left = [number for number in numbers if number not in (4, 701, 1499)][::-1]
    assert [m.number for m in (await harness.view.messages(harness.chat, limit=100)).messages] == left[:100]
    deep = await harness.view.messages(harness.chat, limit=20, offset=1300)
    assert [m.number for m in deep.messages] == left[1300:1320]
    assert [m.number for m in (await harness.view.messages(harness.chat, limit=5, before=703)).messages] == [
        702,
        700,
        699,
        698,
        697,
    ]
    assert [m.number for m in (await harness.view.messages(harness.chat, limit=5, after=698)).messages] == [
        704,
        703,
        702,
        700,
        699,
    ]
    assert [m.number for m in (await harness.view.messages(harness.chat, limit=5, after=1497)).messages] == [1500, 1498]
    assert (await harness.view.messages(harness.chat, limit=5, after=1500)).messages == []
    assert [m.body for m in (await harness.view.messages(harness.chat, limit=1, before=701)).messages] == ["edited"]


async def test_a_deep_page_does_not_read_all_that_it_skips(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.cluster.redis.messages._DEEP", 50)
    await harness.carry_out(AddChat(harness.token, None, 3))
    await harness.post(440)
    await harness.catch_up()
    await harness.carry_out(EditMessage(harness.chat, 100, 1, "edited", 99))
    await harness.carry_out(DeleteMessage(harness.chat, 200, 1, any_sender=False))
    await harness.post(10)
    read: list[int] = []
    messages = harness.store.messages

    async def counted(key: ChatKey, **asked: Any) -> list[Message]:
        read.append(asked["limit"])
        return await messages(key, **asked)

    monkeypatch.setattr(harness.store, "messages", counted)
    left = [number for number in range(450, 0, -1) if number != 200]
    for offset in range(0, 440, 30):
        page = (await harness.view.messages(harness.chat, limit=10, offset=offset)).messages
        assert [message.number for message in page] == left[offset : offset + 10]
    assert 0 < max(read) <= 50 + 10 + 12, "as many as may be skipped, the page, and one for each that waits"


@pytest.mark.parametrize("number", [1, 250, 345, 350])
async def test_changes_show_at_once_however_old_the_message(harness: Harness, number: int, later: bool) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    await harness.post(300)
    await harness.catch_up()
    await harness.post(50)
    await harness.carry_out(EditMessage(harness.chat, number, 1, "edited", 99))
    await settle(harness, later)
    (message,) = (await harness.view.message(harness.chat, number)).messages
    assert (message.body, message.edited_at, message.sender_id) == ("edited", 99, 1)
    page = await harness.view.messages(harness.chat, limit=1, before=number + 1)
    assert [m.body for m in page.messages] == ["edited"]
    await harness.carry_out(DeleteMessage(harness.chat, number, 1, any_sender=False))
    await settle(harness, later)
    assert (await harness.view.message(harness.chat, number)).messages == []
    around = (await harness.view.messages(harness.chat, limit=5, after=max(0, number - 3))).messages
    assert number not in [m.number for m in around]
    assert "edited" not in await harness.bodies(100)
    await harness.catch_up()
    assert (await harness.view.message(harness.chat, number)).messages == []
    assert await harness.post() == [351]
    assert (await harness.bodies())[0] == "message 351"


async def test_roles_follow_every_change(harness: Harness) -> None:
    assert await harness.view.role(caller(1), harness.token) is Role.OWNER
    assert await harness.view.role(caller(2), harness.token) is None
    for role in (Role.MEMBER, Role.ADMIN):
        await harness.carry_out(PutMember(harness.token, 2, role))
        assert await harness.view.role(caller(2), harness.token) is role
    await harness.carry_out(RemoveMember(harness.token, 2))
    assert await harness.view.role(caller(2), harness.token) is None
    for number, role in enumerate((Role.MEMBER, Role.ADMIN)):
        await harness.carry_out(AddInvite(harness.token, Invite(str(number), role, 1, 0, 1, 9), bytes([number]), 1))
        await harness.carry_out(AcceptInvite(harness.token, bytes([number]), 2, 5))
        assert await harness.view.role(caller(2), harness.token) is role


async def test_the_list_of_chats_follows_every_change(harness: Harness) -> None:
    for number in range(1, 4):
        assert not await harness.view.exists(CALLER, ChatKey(harness.token, number))
        await harness.carry_out(AddChat(harness.token, f"Chat {number}", 3))
        assert await harness.view.exists(CALLER, ChatKey(harness.token, number))
        titles = [chat["title"] for chat in json.loads(await harness.view.chats(CALLER, harness.token, 10))]
        assert titles == [f"Chat {n}" for n in range(number, 0, -1)]
    await harness.carry_out(RenameChat(harness.chat, "Another"))
    assert json.loads(await harness.view.chats(CALLER, harness.token, 10))[-1]["title"] == "Another"
    assert len(json.loads(await harness.view.chats(CALLER, harness.token, 2))) == 2


async def test_a_number_whose_message_may_still_come_is_reported_as_open(harness: Harness, later: bool) -> None:
    await harness.carry_out(AddChat(harness.token, None, 3))
    await harness.post(5)
    held: list[int] = []
    if isinstance(harness, InRedis):  # embedded, commands are applied in the order of their numbers
        slot = await harness.numbers.reserve(harness.chat, 7, None)
        assert isinstance(slot, Slot)
        held.append(slot.number)
    for beside in (False, True):  # first above the floor of the entries, then below it
        await harness.post(300 if beside else 2)
        await settle(harness, later)
        gone = (await harness.post())[0]
        await harness.carry_out(DeleteMessage(harness.chat, gone, 1, any_sender=True))
        last = (await harness.post())[0]
        shown = await harness.view.messages(harness.chat, limit=1000, after=2)
        assert list(shown.open) == held
        assert {*range(3, last + 1)}.difference(held, [message.number for message in shown.messages]) >= {gone}
        assert list((await harness.view.numbered(harness.chat, [3, 6, gone, last])).open) == held


async def test_a_server_that_got_other_data_is_not_trusted(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was the replica of another for a moment; the connection stayed open and has not checked again yet."""
    monkeypatch.setattr(connection, "_LOOK_S", 60)
    store = WithoutCopies(tmp_path / "hubbub.db")
    servers = Servers([redis.url])
    assert await servers.connected(10)
    servers.clients[0].keys = Keys(1)
    harness = InRedis(store, servers)
    await harness.begin()
    await harness.carry_out(AddChat(harness.token, None, 3))
    await harness.post(3)
    claim = Claim(1, "key", b"hash")
    slot = await harness.numbers.reserve(harness.chat, 7, claim)
    assert isinstance(slot, Slot)
    post = Post(harness.chat, slot.number, 1, "A", "keyed", 7, "key", b"hash", slot.epoch, sender_ref="ref")
    assert await harness.numbers.show(0, [Confirmed(post, slot.generation, post_entry(post))]) == [True]
    view, chat = harness.view, harness.chat
    assert not (await view.newest(CALLER, chat, 10)).lag

    redis.command("REPLICAOF 127.0.0.1 1")
    redis.command("REPLICAOF NO ONE")
    assert (await view.newest(CALLER, chat, 10)).lag
    assert (await view.numbered(chat, [1, 2])).lag
    for before, after in ((None, None), (3, None), (None, 1)):
        assert (await view.messages(chat, limit=5, before=before, after=after)).lag
    for asked in (harness.numbers.reserve(chat, 8, claim), harness.numbers.reserve(chat, 8, None)):
        with pytest.raises(Unavailable):  # a retry too, or it would get an answer from the other data
            await asked
    with pytest.raises(Unavailable):
        await harness.numbers.order(chat, 1)
    with pytest.raises(Unavailable):
        await harness.numbers.show(0, [Confirmed(post, slot.generation, post_entry(post))])
    await servers.close()
    store.close()
