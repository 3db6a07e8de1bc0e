"""What every queue must do."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from hubbub.chat.commands import AddChat, Command, Outcome
from hubbub.chat.errors import Unavailable
from hubbub.queues.embedded import EmbeddedQueue
from hubbub.writer.writer import Writer


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
        return [command.created_at for command in batch if isinstance(command, AddChat)]

    def count_messages(self) -> None:
        pass


def chat(number: int) -> AddChat:
    return AddChat("t", None, number)


@pytest.fixture
def store() -> Recorded:
    return Recorded()


def queue_on(store: Recorded, **bounds: int) -> EmbeddedQueue:
    return EmbeddedQueue(Writer(store), **bounds)  # type: ignore[arg-type]


async def test_outcomes_come_in_the_order_of_acceptance(store: Recorded) -> None:
    queue = queue_on(store, max_batch=7)
    told: list[Outcome] = []
    tickets = [queue.accept(chat(number)) for number in range(100)]
    for ticket in tickets:
        ticket.then(told.append)
    assert await tickets[-1] == 99
    assert told == list(range(100))
    assert store.applied == [chat(number) for number in range(100)]
    await queue.close()


async def test_a_full_queue_refuses_at_once_and_recovers(store: Recorded) -> None:
    store.gate.clear()
    queue = queue_on(store, max_commands=3)
    tickets = [queue.accept(chat(number)) for number in range(3)]
    with pytest.raises(Unavailable):
        queue.accept(chat(3))
    assert queue.depth == 3
    store.gate.set()
    assert [await ticket for ticket in tickets] == [0, 1, 2]
    assert await queue.accept(chat(4)) == 4
    await queue.close()


async def test_close_finishes_what_was_accepted(store: Recorded) -> None:
    queue = queue_on(store)
    told: list[Outcome] = []
    for number in range(50):
        queue.accept(chat(number)).then(told.append)
    await queue.close()
    assert told == list(range(50))
    with pytest.raises(Unavailable):
        queue.accept(chat(51))


async def test_a_failing_store_is_reported_and_forgiven(store: Recorded) -> None:
    queue = queue_on(store)
    store.fault = Unavailable("disk full")
    with pytest.raises(Unavailable, match="disk full"):
        await queue.accept(chat(1))
    assert queue.fault == "disk full"
    store.fault = None
    assert await queue.accept(chat(2)) == 2
    assert queue.fault is None
    await queue.close()


async def test_one_bad_command_does_not_sink_its_batch(store: Recorded) -> None:
    class Picky(Recorded):
        def apply(self, batch: Sequence[Command]) -> list[Outcome]:
            if chat(13) in batch:
                raise RuntimeError("unlucky")
            return super().apply(batch)

    queue = queue_on(Picky())
    tickets = [queue.accept(chat(number)) for number in range(20)]
    for number, ticket in enumerate(tickets):
        if number == 13:
            with pytest.raises(Unavailable):
                await ticket
        else:
            assert await ticket == number
    await queue.close()
