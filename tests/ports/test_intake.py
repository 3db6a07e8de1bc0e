"""What every intake must do. A new adapter is one more Harness, and one more fixture parameter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    EditMessage,
    HandOver,
    PutMember,
    RemoveMember,
    RenameChat,
)
from hubbub.chat.errors import ChatError, Forbidden, Invalid, KeyReused, NotFound, Unavailable
from hubbub.chat.feed import Feed
from hubbub.chat.model import ChatKey, Role, User
from hubbub.chat.ports import Intake, Store, View
from hubbub.embedded.intake import DirectIntake
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.remembered import Remembered
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.embedded.writer import Writer
from hubbub.http.limits import LocalGate
from tests.committing import queue_with
from tests.ports.cluster import Way, cluster

TOKEN = "token"
CHAT = ChatKey(TOKEN, 1)


class Harness:
    """A way in, what is seen of what came in, and where it ends. ``fail`` makes it refuse, ``fix`` take again;
    ``stored`` waits until the store has all that was acknowledged.
    """

    intake: Intake
    view: View
    store: Store

    def fail(self) -> None:
        raise NotImplementedError

    def fix(self) -> None:
        raise NotImplementedError

    async def stored(self) -> None:
        raise NotImplementedError

    async def begin(self) -> None:
        self.users: list[User] = [
            await self.intake.accept(AddUser(f"ref{name}", f"{name}@x", name, "hash", 1)) for name in ("ann", "bob")
        ]
        self.ann, self.bob = (Caller(user) for user in self.users)
        await self.intake.accept(AddApplication(TOKEN, "T", self.ann.user.id, 2))
        assert await self.intake.accept(AddChat(TOKEN, None, 3)) == 1

    async def post(self, body: str, key: str | None = None, caller: Caller | None = None) -> int:
        number: int = await (await self.intake.post(caller or self.ann, CHAT, body, key))
        return number

    async def bodies(self) -> list[str]:
        """Newest first, as readers see them."""
        return [message["body"] for message in json.loads((await self.view.newest(self.ann, CHAT, 100)).body)]


class Stuck(SqliteStore):
    """An intake that can be made to refuse."""

    stuck = False

    def apply(self, batch):  # type: ignore[no-untyped-def]
        if self.stuck:
            raise Unavailable("The disk is full.")
        return super().apply(batch)


class Embedded(Harness):
    def __init__(self, store: Stuck, queue: EmbeddedQueue, cache: MemoryCache) -> None:
        self.store = self.sqlite = store
        self.view = cache
        self.intake = DirectIntake(queue, lambda: 1000)

    def fail(self) -> None:
        self.sqlite.stuck = True

    def fix(self) -> None:
        self.sqlite.stuck = False

    async def stored(self) -> None:
        """Nothing to wait for: what is acknowledged is stored."""


class Cluster(Harness):
    def __init__(self, way: Way) -> None:
        self.store, self.view, self.intake, self.way = way.store, way.view, way.intake, way

    def fail(self) -> None:
        self.way.refuse(True)

    def fix(self) -> None:
        self.way.refuse(False)

    async def stored(self) -> None:
        await self.way.stored()


@pytest.fixture(params=["embedded", "cluster"])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    if request.param == "embedded":
        store = Stuck(tmp_path / "hubbub.db")
        cache = MemoryCache(store, Feed())
        queue = await queue_with(Writer(store), Remembered(cache, LocalGate(1000)))
        harness: Harness = Embedded(store, queue, cache)
        await harness.begin()
        yield harness
        await queue.close()
        store.close()
        return
    servers = (request.getfixturevalue(name) for name in ("mariadb", "rabbitmq", "redis"))
    async with cluster(*servers) as way:
        harness = Cluster(way)
        await harness.begin()
        yield harness


async def test_a_number_is_told_when_the_message_is_seen(way: Harness) -> None:
    for number in range(1, 6):
        assert await way.post(f"message {number}") == number
        assert (await way.bodies())[0] == f"message {number}"
    await way.stored()
    assert [message.number for message in await way.store.messages(CHAT, limit=9)] == [5, 4, 3, 2, 1]


async def test_many_at_once_get_a_number_each_in_the_order_of_one_sender(way: Harness) -> None:
    tickets = [await way.intake.post(way.ann, CHAT, str(number), None) for number in range(200)]
    numbers = [await ticket for ticket in tickets]
    assert numbers == sorted(set(numbers))
    await way.stored()
    stored = await way.store.messages(CHAT, limit=200)
    assert [message.body for message in reversed(stored)] == [str(number) for number in range(200)]


async def test_a_ticket_tells_its_listeners_after_readers_can_see(way: Harness) -> None:
    ticket = await way.intake.post(way.ann, CHAT, "hello", None)
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    ticket.then(told.set_result)
    assert await told == 1
    assert await way.bodies() == ["hello"]


async def test_a_retry_gets_the_first_number_and_adds_nothing(way: Harness) -> None:
    first = await way.post("once", "key")
    assert await way.post("once", "key") == first
    assert await way.post("another", None) == first + 1
    await way.stored()
    assert await way.post("once", "key") == first
    assert await way.bodies() == ["another", "once"]


async def test_retries_at_once_get_one_number(way: Harness) -> None:
    tickets = await asyncio.gather(*(way.intake.post(way.ann, CHAT, "once", "key") for _ in range(20)))
    assert {await ticket for ticket in tickets} == {1}
    assert await way.post("another") == 2  # nor do retries take numbers
    assert await way.bodies() == ["another", "once"]


async def test_a_key_with_another_body_is_refused_at_once_and_later(way: Harness) -> None:
    this, that, again = await asyncio.gather(
        *(way.post(body, "key") for body in ("this", "that", "this")), return_exceptions=True
    )
    # Of requests at the same time any may be the first; who has its body gets its number, and who has not is refused.
    refused = [isinstance(outcome, KeyReused) for outcome in (this, that, again)]
    assert refused in ([True, False, True], [False, True, False])
    assert refused[0] or this == again
    await way.stored()
    with pytest.raises(KeyReused):
        await way.post("those", "key")
    assert len(await way.bodies()) == 1


async def test_a_key_is_one_senders_in_one_chat(way: Harness) -> None:
    await way.intake.accept(PutMember(TOKEN, way.bob.user.id, Role.MEMBER))
    assert await way.post("ann's", "key") == 1
    assert await way.post("bob's", "key", way.bob) == 2
    assert await way.intake.accept(AddChat(TOKEN, None, 3)) == 2
    assert await (await way.intake.post(way.ann, ChatKey(TOKEN, 2), "elsewhere", "key")) == 1


async def test_a_deleted_messages_key_is_still_used(way: Harness) -> None:
    number = await way.post("once", "key")
    await way.stored()
    await way.intake.accept(DeleteMessage(CHAT, number, way.ann.user.id, any_sender=False))
    await way.stored()
    assert await way.post("once", "key") == number
    assert await way.bodies() == []


@pytest.mark.parametrize("key", [None, "key"])
async def test_what_is_refused_is_not_there_and_may_be_sent_again(way: Harness, key: str | None) -> None:
    way.fail()
    with pytest.raises(Unavailable):
        await way.post("hello", key)
    assert await way.bodies() == []
    way.fix()
    number = await way.post("hello", key)
    assert await way.bodies() == ["hello"]
    assert await way.post("more") == number + 1


async def test_who_waits_for_a_first_try_that_fails_is_told_so(way: Harness) -> None:
    way.fail()
    outcomes = await asyncio.gather(*(way.post("hello", "key") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    way.fix()
    assert await asyncio.gather(*(way.post("hello", "key") for _ in range(5))) == [await way.post("hello", "key")] * 5


async def test_another_body_is_no_misuse_of_a_key_that_nothing_came_of(way: Harness) -> None:
    way.fail()
    lost = asyncio.ensure_future(way.post("hello", "key"))
    await asyncio.sleep(0)
    another = asyncio.ensure_future(way.post("changed my mind", "key"))
    outcomes = await asyncio.gather(lost, another, return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    way.fix()
    await way.post("changed my mind", "key")
    assert await way.bodies() == ["changed my mind"]


async def test_changes_are_seen_when_they_are_acknowledged(way: Harness) -> None:
    ann = way.ann.user.id
    await way.post("one")
    await way.post("two")
    await way.intake.accept(EditMessage(CHAT, 1, ann, "edited", 9))
    assert await way.bodies() == ["two", "edited"]
    await way.intake.accept(DeleteMessage(CHAT, 2, ann, any_sender=False))
    assert await way.bodies() == ["edited"]
    await way.stored()
    assert [message.body for message in await way.store.messages(CHAT, limit=9)] == ["edited"]
    await way.intake.accept(RenameChat(CHAT, "Title"))
    (chat,) = json.loads(await way.view.chats(way.ann, TOKEN, 10))
    assert chat["title"] == "Title"


async def test_the_directory_answers_with_outcomes_and_refusals(way: Harness) -> None:
    ann, bob = way.ann.user.id, way.bob.user.id
    refusals: list[tuple[object, type[ChatError]]] = [
        (AddUser("ref", "ann@x", "Again", "hash", 1), Invalid),
        (PutMember(TOKEN, ann, Role.MEMBER), Forbidden),
        (RemoveMember(TOKEN, ann), Forbidden),
        (RemoveMember(TOKEN, bob), NotFound),
    ]
    for command, refusal in refusals:
        with pytest.raises(refusal):
            await way.intake.accept(command)  # type: ignore[arg-type]
    assert await way.view.role(way.bob, TOKEN) is None
    await way.intake.accept(PutMember(TOKEN, bob, Role.ADMIN))
    assert await way.view.role(way.bob, TOKEN) is Role.ADMIN
    await way.intake.accept(HandOver(TOKEN, ann, bob))
    assert [await way.view.role(caller, TOKEN) for caller in (way.ann, way.bob)] == [Role.ADMIN, Role.OWNER]
    await way.intake.accept(RemoveMember(TOKEN, ann))
    assert await way.view.role(way.ann, TOKEN) is None


async def test_what_is_deleted_is_gone_when_it_is_acknowledged(way: Harness) -> None:
    assert await way.intake.accept(AddChat(TOKEN, "Two", 3)) == 2
    for key in (None, "key"):
        await way.post("hello", key)
    assert await way.view.exists(way.ann, CHAT)
    assert len(json.loads(await way.view.chats(way.ann, TOKEN, 10))) == 2
    await way.intake.accept(DeleteChat(CHAT))
    assert not await way.view.exists(way.ann, CHAT)
    assert [chat["chatNumber"] for chat in json.loads(await way.view.chats(way.ann, TOKEN, 10))] == [2]
    for key in (None, "key", "another"):  # of who was let in before
        with pytest.raises(NotFound):
            await way.post("late", key)
    with pytest.raises(NotFound):
        await way.intake.accept(EditMessage(CHAT, 1, way.ann.user.id, "late", 9))
    with pytest.raises(NotFound):
        await way.intake.accept(DeleteChat(CHAT))
    assert await way.intake.accept(AddChat(TOKEN, "Three", 3)) == 3
    await way.intake.accept(DeleteApplication(TOKEN))
    assert await way.view.role(way.ann, TOKEN) is None
    with pytest.raises(NotFound):
        await way.intake.accept(DeleteApplication(TOKEN))
