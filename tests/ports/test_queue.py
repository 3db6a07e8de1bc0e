"""What every queue must do: the same suite for the embedded one and for RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, cast, get_args

import msgspec
import pytest

from hubbub.chat.commands import AddUser, Command, Outcome, PostMessage, Repeated
from hubbub.chat.errors import Invalid, KeyReused, NotFound, RateLimited, Unavailable, UsedUp, WrongCode
from hubbub.chat.model import ChatKey, Invite, Joined, Purpose, Role, User
from hubbub.chat.ports import Queue
from hubbub.chat.ticket import Ticket
from hubbub.cluster.consumer import RabbitConsumer
from hubbub.cluster.protocol import Delivery, Post
from hubbub.cluster.publisher import Publisher
from hubbub.cluster.writer import ShardWriter
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.writer import Writer
from hubbub.loadtest.servers import RabbitMq
from tests.committing import queue_with
from tests.ports.stores import queued

_tokens = itertools.count(1)


_INVITE = Invite("ref", Role.MEMBER, 3, 1, 5, 6)
_VALUES: dict[object, object] = {
    int: 7,
    str: "a text: ü 日本語 🎉",
    bytes: b"\x00\xff",
    bool: True,
    ChatKey: ChatKey("t", 3),
    Role: Role.ADMIN,
    Purpose: Purpose.RESET,
    Invite: _INVITE,
    AddUser: AddUser("ref", "ann@x", "Ann", "hash", 5),
    tuple[int, ...]: (1, 2),
}


def _any_of(kind: type[msgspec.Struct]) -> Any:
    """A command of this kind with a value in every field."""
    values = []
    for field in msgspec.structs.fields(kind):
        kinds = [each for each in get_args(field.type) if each in _VALUES]
        values.append(_VALUES[field.type if field.type in _VALUES else kinds[0]])
    return kind(*values)


COMMANDS: list[Command] = [_any_of(kind) for kind in get_args(Command)]


class Recorded:
    """A store that only remembers what it was given, and holds still while ``gate`` is closed."""

    def __init__(self) -> None:
        self.applied: list[Command] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fault: str | None = None
        self.failure: Exception | None = None

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        self.applied += batch
        return [command.number for command in batch if isinstance(command, PostMessage)]

    def count_messages(self) -> None:
        pass

    def erase(self) -> None:
        pass

    def indexed(self, position: int) -> None:
        self.applied.append(position)  # type: ignore[arg-type]

    def unsound(self, fault: str) -> None:
        self.failure = Unavailable(fault)


class Closing(Queue, Protocol):
    async def close(self) -> None: ...


class Harness:
    """Makes queues of one kind whose commands end in ``store``."""

    def __init__(self, store: Recorded) -> None:
        self.store = store
        self.token = f"t{next(_tokens)}"

    def post(self, number: int, sender: int = 1) -> PostMessage:
        return PostMessage(ChatKey(self.token, 1), number, sender, "ref", "A", "x", 0)

    async def queue(self, **bounds: int) -> Closing:
        raise NotImplementedError

    async def all_applied(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.store.applied) < count:
                await asyncio.sleep(0.01)


class Embedded(Harness):
    def __init__(self, store: Recorded) -> None:
        super().__init__(store)
        self.queues: list[EmbeddedQueue] = []

    async def queue(self, **bounds: int) -> Closing:
        self.queues.append(await queue_with(Writer(self.store), **bounds))  # type: ignore[arg-type]
        return self.queues[-1]

    async def close(self) -> None:
        """Close what a test has left: a queue whose loop ends before its committer would end pytest."""
        self.store.gate.set()
        for queue in self.queues:
            await queue.close()


class Queued:
    """A publisher as the port has it."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @property
    def depth(self) -> int:
        return self._publisher.depth

    @property
    def fault(self) -> str | None:
        return self._publisher.fault

    def accept(self, command: Command) -> Ticket:
        assert isinstance(command, PostMessage)
        reservation = self._publisher.hold(command.chat.token, len(command.body), command.sender_id)
        answer = Ticket(command)
        sent = self._publisher.send(queued(command), reservation)
        sent.then(lambda outcome: answer.resolve(outcome if outcome is not None else command.number))
        return answer

    async def close(self) -> None:
        await self._publisher.close()


class Rabbit(Harness):
    def __init__(self, store: Recorded, server: RabbitMq) -> None:
        super().__init__(store)
        self.server = server

    async def queue(self, **bounds: int) -> Closing:
        publisher = Publisher(self.server.url, 4, **bounds)
        assert await publisher.connected(20)
        return Queued(publisher)

    async def consume(self) -> Callable[[], Any]:
        """Read the queues into the store; what this returns stops it."""

        class Recording:
            async def write(recording, _shard: int, deliveries: Sequence[Delivery]) -> None:  # noqa: N805
                for command in [c for delivery in deliveries for c in delivery.commands]:
                    if isinstance(command, Post) and command.chat.token == self.token:
                        self.store.applied.append(self.post(command.number))

        async def heartbeat() -> int:
            return 1

        def refuse(*_: object) -> None:
            raise AssertionError("nothing is unreadable here, and nothing is missing")

        consumer = RabbitConsumer(
            self.server.url, 4, cast(ShardWriter, Recording()), heartbeat=heartbeat, decide=refuse, unreadable=refuse
        )
        ready = asyncio.Event()
        running = asyncio.create_task(consumer.run(ready.set))
        await asyncio.wait_for(ready.wait(), 20)

        async def stop() -> None:
            consumer.stop()
            await running

        return stop


@pytest.fixture(params=["embedded", "rabbitmq"])
async def harness(request: pytest.FixtureRequest, store: Recorded) -> AsyncIterator[Harness]:
    if request.param == "embedded":
        embedded = Embedded(store)
        yield embedded
        await embedded.close()
        return
    rabbit = Rabbit(store, request.getfixturevalue("rabbitmq"))
    stop = await rabbit.consume()
    yield rabbit
    await stop()


@pytest.fixture
def store() -> Recorded:
    return Recorded()


async def test_commands_are_applied_in_the_order_of_acceptance(harness: Harness) -> None:
    queue = await harness.queue()
    told: list[Outcome] = []
    tickets = [queue.accept(harness.post(number)) for number in range(100)]
    for ticket in tickets:
        ticket.then(told.append)
    assert await tickets[-1] == 99
    assert told == list(range(100))
    await harness.all_applied(100)
    assert harness.store.applied == [harness.post(number) for number in range(100)]
    await queue.close()


async def test_a_full_queue_refuses_at_once_and_recovers(harness: Harness) -> None:
    queue = await harness.queue(max_commands=3)
    harness.store.gate.clear()
    tickets = [queue.accept(harness.post(number)) for number in range(3)]
    with pytest.raises(Unavailable, match="full"):
        queue.accept(harness.post(3))
    assert queue.depth == 3
    harness.store.gate.set()
    assert [await ticket for ticket in tickets] == [0, 1, 2]
    assert await queue.accept(harness.post(4)) == 4
    assert queue.depth == 0
    await queue.close()


async def test_one_user_does_not_fill_the_queue(harness: Harness) -> None:
    queue = await harness.queue(max_user_bytes=2000)
    harness.store.gate.clear()
    tickets = [queue.accept(harness.post(number)) for number in range(3)]
    with pytest.raises(RateLimited, match="not stored"):
        queue.accept(harness.post(3))
    tickets.append(queue.accept(harness.post(4, sender=2)))
    harness.store.gate.set()
    assert [await ticket for ticket in tickets] == [0, 1, 2, 4]
    assert await queue.accept(harness.post(5)) == 5
    await queue.close()


async def test_close_finishes_what_was_accepted(harness: Harness) -> None:
    queue = await harness.queue()
    told: list[Outcome] = []
    for number in range(50):
        queue.accept(harness.post(number)).then(told.append)
    await queue.close()
    assert told == list(range(50))
    with pytest.raises(Unavailable):
        queue.accept(harness.post(51))
    await harness.all_applied(50)


async def queue_on(store: Recorded, **bounds: int) -> EmbeddedQueue:
    return await queue_with(Writer(store), **bounds)  # type: ignore[arg-type]


def post(number: int) -> PostMessage:
    return PostMessage(ChatKey("t", 1), number, 1, "ref", "A", "x", 0)


async def test_a_failing_store_is_reported_and_forgiven(store: Recorded) -> None:
    queue = await queue_on(store)
    store.failure = Unavailable("disk full")
    with pytest.raises(Unavailable, match="disk full"):
        await queue.accept(post(1))
    assert queue.fault == "disk full"
    store.failure = None
    assert await queue.accept(post(2)) == 2
    assert queue.fault is None
    await queue.close()


async def test_a_commit_takes_so_many_bytes(store: Recorded) -> None:
    sizes: list[int] = []

    class Counting(Recorded):
        def apply(self, batch: Sequence[Command]) -> list[Outcome]:
            sizes.append(len(batch))
            return super().apply(batch)

    counting = Counting()
    queue = await queue_on(counting, max_batch_bytes=1500)
    counting.gate.clear()
    tickets = [queue.accept(post(number)) for number in range(20)]
    counting.gate.set()
    assert [await ticket for ticket in tickets] == list(range(20))
    assert max(sizes) == 3
    await queue.close()


class Sized(Recorded):
    """Notes how many commands are applied together."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        self.sizes.append(len(batch))
        return super().apply(batch)


async def test_who_sends_one_after_another_waits_for_no_pace() -> None:
    store = Sized()
    queue = await queue_with(Writer(store), pace_s=3600)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        assert [await queue.accept(post(number)) for number in range(20)] == list(range(20))
        await queue.close()


async def test_several_that_wait_share_the_next_commit_with_what_comes_soon() -> None:
    store = Sized()
    queue = await queue_with(Writer(store), pace_s=0.5)  # type: ignore[arg-type]
    assert await queue.accept(post(0)) == 0
    tickets = [queue.accept(post(number)) for number in range(1, 6)]
    for number in range(6, 20):
        await asyncio.sleep(0)
        tickets.append(queue.accept(post(number)))
    assert [await ticket for ticket in tickets] == list(range(1, 20))
    assert store.sizes == [1, 19]
    await queue.close()


async def test_no_commit_waits_for_more_than_share_it_well(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr("hubbub.embedded.committer.time.sleep", sleep)
    queue = await queue_with(Writer(Sized()), pace_s=0.5)  # type: ignore[arg-type]
    assert await queue.accept(post(0)) == 0
    busy = [queue.accept(post(number)) for number in range(1, 401)]
    assert [await ticket for ticket in busy] == list(range(1, 401))
    waited = len(slept)
    several = [queue.accept(post(number)) for number in range(401, 411)]
    assert [await ticket for ticket in several] == list(range(401, 411))
    assert all(seconds < 0.4 for seconds in slept[waited:])  # 24 come in far less time than 400 did
    await queue.close()


async def test_one_bad_command_does_not_sink_its_batch(store: Recorded) -> None:
    class Picky(Recorded):
        def apply(self, batch: Sequence[Command]) -> list[Outcome]:
            if post(13) in batch:
                raise RuntimeError("unlucky")
            return super().apply(batch)

    queue = await queue_on(Picky())
    tickets = [queue.accept(post(number)) for number in range(20)]
    for number, ticket in enumerate(tickets):
        if number == 13:
            with pytest.raises(Unavailable):
                await ticket
        else:
            assert await ticket == number
    await queue.close()


async def test_the_store_hears_how_far_the_index_is_in_the_order_of_the_commands(store: Recorded) -> None:
    queue = await queue_on(store)
    queue.indexed(7)
    assert await queue.accept(post(1)) == 1
    assert store.applied == [7, post(1)]
    await queue.close()


async def test_a_fault_of_the_store_is_known_without_a_command(store: Recorded) -> None:
    queue = await queue_on(store)
    store.fault = "The database was moved."
    async with asyncio.timeout(20):
        while queue.store_fault is None:
            await asyncio.sleep(0.01)
    assert queue.store_fault == "The database was moved."
    assert queue.fault is None
    await queue.close()


async def test_every_outcome_arrives_as_it_was(store: Recorded) -> None:
    outcomes: list[Outcome] = [
        User(7, "ref", "ann@x", "Ann", 5, "era"),
        None,
        Repeated(7),
        Joined("token", Role.ADMIN),
        Invalid(["The email is taken.", "The name is too long."]),
        NotFound("There is no such chat.", lag=True),
        WrongCode("This code is used up."),
        RateLimited("Too many.", limit=3, retry_after=2.5),
        UsedUp("Too many.", what="failed logins", limit=3, retry_after=2.5),
        KeyReused("Another body came with this key."),
        Unavailable("The disk is full.", retry_after=5),
    ]

    class Answering(Recorded):
        def apply(self, batch: Sequence[Command]) -> list[Outcome]:
            return outcomes

    queue = await queue_on(Answering())
    came: list[Outcome] = []
    for number in range(len(outcomes)):
        queue.accept(post(number)).then(came.append)
    await queue.close()
    assert [(type(each), vars(each) if isinstance(each, Exception) else each, str(each)) for each in came] == [
        (type(each), vars(each) if isinstance(each, Exception) else each, str(each)) for each in outcomes
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
async def test_every_command_arrives_as_it_was(store: Recorded, command: Command) -> None:
    class Answering(Recorded):
        def apply(self, batch: Sequence[Command]) -> list[Outcome]:
            self.applied += batch
            return [None] * len(batch)

    answering = Answering()
    queue = await queue_on(answering)
    assert await queue.accept(command) is None
    assert answering.applied == [command]
    await queue.close()


async def test_nothing_is_stored_once_the_database_was_found_unusable(store: Recorded) -> None:
    queue = await queue_on(store)
    queue.unsound("The database is damaged.")
    with pytest.raises(Unavailable, match="damaged"):
        await queue.accept(post(1))
    assert store.applied == []
    await queue.close()


async def test_a_committer_that_does_not_answer_is_a_fault(store: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.queue._SILENT_S", 0.05)
    queue = await queue_on(store)
    assert queue.fault is None
    store.gate.clear()
    ticket = queue.accept(post(1))
    assert queue.fault is None
    async with asyncio.timeout(20):
        while queue.fault is None:
            await asyncio.sleep(0.01)
    assert "has not answered" in queue.fault
    store.gate.set()
    assert await ticket == 1
    assert queue.fault is None
    await queue.close()


async def test_all_that_a_waiting_command_takes_counts(store: Recorded) -> None:
    text = "\u00e9" * 10_000  # 10 KB as a string; as UTF-8, which the string keeps and the socket holds, twice 20 KB
    queue = await queue_on(store, max_bytes=51_000)
    store.gate.clear()
    one = queue.accept(msgspec.structs.replace(post(1), body=text))
    with pytest.raises(Unavailable, match="full"):
        queue.accept(post(2))
    store.gate.set()
    assert await one == 1
    await queue.close()
