"""What every queue must do: the same suite for the embedded one and for RabbitMQ."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, cast

import pytest

from hubbub.chat.commands import Command, Outcome, PostMessage
from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Queue
from hubbub.chat.ticket import Ticket
from hubbub.cluster.consumer import RabbitConsumer
from hubbub.cluster.protocol import Delivery, Post
from hubbub.cluster.publisher import Publisher
from hubbub.cluster.writer import ShardWriter
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.writer import Writer
from hubbub.loadtest.servers import RabbitMq
from tests.ports.stores import queued

_tokens = itertools.count(1)


class Recorded:
    """A store that only remembers what it was given, and holds still while ``gate`` is closed."""

    def __init__(self) -> None:
        self.applied: list[Command] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        self.gate.wait(10)
        if self.fault is not None:
            raise self.fault
        self.applied += batch
        return [command.number for command in batch if isinstance(command, PostMessage)]

    def count_messages(self) -> None:
        pass

    def erase(self) -> None:
        pass


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
        self.queues.append(EmbeddedQueue(Writer(self.store), **bounds))  # type: ignore[arg-type]
        return self.queues[-1]

    async def close(self) -> None:
        """Whatever a test has left: a thread that outlives its loop would end pytest."""
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


def queue_on(store: Recorded) -> EmbeddedQueue:
    return EmbeddedQueue(Writer(store))  # type: ignore[arg-type]


def post(number: int) -> PostMessage:
    return PostMessage(ChatKey("t", 1), number, 1, "ref", "A", "x", 0)


async def test_a_failing_store_is_reported_and_forgiven(store: Recorded) -> None:
    queue = queue_on(store)
    store.fault = Unavailable("disk full")
    with pytest.raises(Unavailable, match="disk full"):
        await queue.accept(post(1))
    assert queue.fault == "disk full"
    store.fault = None
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
    queue = EmbeddedQueue(Writer(counting), max_batch_bytes=1500)  # type: ignore[arg-type]
    counting.gate.clear()
    tickets = [queue.accept(post(number)) for number in range(20)]
    counting.gate.set()
    assert [await ticket for ticket in tickets] == list(range(20))
    assert max(sizes) == 3
    await queue.close()


async def test_one_bad_command_does_not_sink_its_batch(store: Recorded) -> None:
    class Picky(Recorded):
        def apply(self, batch: Sequence[Command]) -> list[Outcome]:
            if post(13) in batch:
                raise RuntimeError("unlucky")
            return super().apply(batch)

    queue = queue_on(Picky())
    tickets = [queue.accept(post(number)) for number in range(20)]
    for number, ticket in enumerate(tickets):
        if number == 13:
            with pytest.raises(Unavailable):
                await ticket
        else:
            assert await ticket == number
    await queue.close()
