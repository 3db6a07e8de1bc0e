"""Several processes that serve share one committer: each hears of what all have changed, in the order of the commits.
The committer is a thread here, and the queues of all processes are on one event loop."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec
import pytest

from hubbub.chat.commands import Command, Outcome, PostMessage
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.embedded.committer import Batch, Committer, Stored
from hubbub.embedded.frames import Frames, array, frame, packed
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.ring import Ring, Shared
from hubbub.embedded.writer import Writer
from tests.committing import queues_with, run_beside


class Kept:
    """A store that answers each post with its number, and waits while ``open`` is not set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.failure: Exception | None = None
        self.fault: str | None = None

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        self.open.wait(20)
        if self.failure is not None:
            raise self.failure
        return [cast(PostMessage, command).number for command in batch]

    def count_messages(self) -> None:
        pass

    def erase(self) -> None:
        pass


class Heard:
    """The numbers of the messages that a process has heard of, and how often it was told that it has missed some."""

    def __init__(self) -> None:
        self.numbers: list[Outcome] = []
        self.times_missed = 0

    def applied(self, command: Command, outcome: Outcome) -> None:
        assert cast(PostMessage, command).number == outcome
        self.numbers.append(outcome)

    def missed(self) -> None:
        self.times_missed += 1


def post(number: int, body: str = "x") -> PostMessage:
    return PostMessage(ChatKey("t", 1), number, 1, "ref", "A", body, 0)


Start = Callable[..., Awaitable[tuple[list[EmbeddedQueue], list[Heard]]]]


@pytest.fixture
def store() -> Kept:
    return Kept()


@pytest.fixture
async def start(store: Kept) -> AsyncIterator[Start]:
    """Starts queues with a ring of this size."""
    started: list[EmbeddedQueue] = []
    wakers: list[int] = []

    async def started_with(ring: int = 1_000_000, count: int = 2) -> tuple[list[EmbeddedQueue], list[Heard]]:
        heard = [Heard() for _ in range(count)]
        wakers.extend(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(count))
        started.extend(await queues_with(Writer(cast(Any, store)), heard, Shared(Ring(ring), wakers)))
        return started, heard

    yield started_with
    store.open.set()
    for queue in reversed(started):
        await queue.close()
    for waker in wakers:
        os.close(waker)


async def test_each_process_hears_all_in_one_order(start: Start) -> None:
    queues, heard = await start(count=3)
    tickets = []
    for number in range(600):
        tickets.append(queues[number % 3].accept(post(number)))
        if number % 50 == 0:
            await asyncio.sleep(0)
    assert [await ticket for ticket in tickets] == list(range(600))
    for queue in queues:
        queue.catch_up()
    assert heard[0].numbers == heard[1].numbers == heard[2].numbers
    assert sorted(cast(list[int], heard[0].numbers)) == list(range(600))
    for place in range(3):
        own = [number for number in cast(list[int], heard[0].numbers) if number % 3 == place]
        assert own == list(range(place, 600, 3)), "those of one process come in the order of acceptance"
    assert not any(each.times_missed for each in heard)


async def test_what_one_process_has_acknowledged_the_others_know_without_a_turn_of_the_loop(start: Start) -> None:
    queues, heard = await start()
    seen_by_the_other: list[Outcome] = []

    def acknowledged(outcome: Outcome) -> None:
        queues[1].catch_up()
        seen_by_the_other.append(outcome in heard[1].numbers)

    for number in range(50):
        ticket = queues[0].accept(post(number))
        ticket.then(acknowledged)
        await ticket
    assert seen_by_the_other == [True] * 50


async def test_a_process_that_has_nothing_to_do_is_woken(start: Start) -> None:
    queues, heard = await start()
    assert await queues[0].accept(post(1)) == 1
    async with asyncio.timeout(20):
        while heard[1].numbers != [1]:
            await asyncio.sleep(0)


async def test_all_is_heard_before_any_outcome_of_the_same_commit_is_told(start: Start, store: Kept) -> None:
    """Whoever is answered may ask at once, on the same connection, for what another has been told too."""
    queues, heard = await start()
    store.open.clear()
    queues[0].accept(post(0))
    await asyncio.sleep(0)  # it is sent, and the rest gathers behind it
    known: list[tuple[bool, bool]] = []
    mine = queues[0].accept(post(1))
    mine.then(lambda _: known.append((2 in heard[0].numbers, 3 in heard[0].numbers)))
    other, last = queues[1].accept(post(2)), queues[0].accept(post(3))
    await asyncio.sleep(0)
    store.open.set()
    assert [await ticket for ticket in (mine, other, last)] == [1, 2, 3]
    assert known == [(True, True)] or heard[0].numbers.index(2) > heard[0].numbers.index(3)


async def test_commands_that_are_refused_change_nothing_and_are_told(start: Start, store: Kept) -> None:
    queues, heard = await start()
    store.failure = Unavailable("disk full")
    for queue in queues:
        with pytest.raises(Unavailable, match="disk full"):
            await queue.accept(post(1))
        assert queue.fault == "disk full"
    store.failure = None
    assert [await queues[0].accept(post(2)), await queues[1].accept(post(3))] == [2, 3]
    queues[0].catch_up()
    assert heard[0].numbers == heard[1].numbers == [2, 3]


async def test_a_process_that_sends_nothing_hears_of_a_fault(start: Start, store: Kept) -> None:
    queues, _ = await start()
    store.failure = Unavailable("disk full")
    with pytest.raises(Unavailable, match="disk full"):
        await queues[0].accept(post(1))
    async with asyncio.timeout(20):
        while queues[1].fault != "disk full":
            await asyncio.sleep(0)


async def test_what_does_not_fit_in_the_ring_is_missed_and_still_acknowledged(start: Start) -> None:
    queues, heard = await start(ring=2000)
    tickets = [queue.accept(post(number, "long" * 300)) for number, queue in enumerate([*queues] * 3)]
    assert [await ticket for ticket in tickets] == list(range(6))
    for queue, each in zip(queues, heard, strict=True):
        queue.catch_up()
        assert each.times_missed
    assert await queues[0].accept(post(7)) == 7
    queues[1].catch_up()
    assert (heard[0].numbers[-1], heard[1].numbers[-1]) == (7, 7)
    assert [queue.depth for queue in queues] == [0, 0]


async def test_outcomes_of_a_missed_stretch_come_later_than_those_after_it(start: Start, store: Kept) -> None:
    """The ring is read again before the committer's answers have come."""
    queues, heard = await start(ring=2000)
    told: list[Outcome] = []
    for number in range(4):
        store.open.clear()
        queues[0].accept(post(number, "long" * (0 if number == 3 else 300))).then(told.append)
        await asyncio.sleep(0)
        store.open.set()
        until = threading.Event()
        while queues[0]._reader is not None and queues[0]._reader.head[0] == queues[0]._reader.at and number < 1:
            until.wait(0.001)  # the loop has no turn, so that no answer of the committer is read
        until.wait(0.05)
    queues[0].catch_up()
    async with asyncio.timeout(20):
        while len(told) < 4:
            await asyncio.sleep(0)
    assert sorted(cast(list[int], told)) == [0, 1, 2, 3]
    assert heard[0].times_missed


async def test_an_outcome_that_is_not_in_the_ring_is_told_when_the_answer_comes() -> None:
    """Two commands are refused, so they are not in the ring, and it is read again before their answers have come. The
    test has the other end of the queue's socket."""
    ours, theirs = socket.socketpair()
    shared = Shared(Ring(10_000), [os.eventfd(0, os.EFD_NONBLOCK)])
    heard = Heard()
    queue = EmbeddedQueue(heard, shared)
    await queue.connect(ours)
    encode, told = msgspec.msgpack.encode, list[tuple[int, Outcome]]()
    commands = [post(number) for number in (1, 2, 3)]
    for number, command in enumerate(commands, 1):
        queue.accept(command).then(lambda outcome, number=number: told.append((number, outcome)))  # type: ignore[misc]
    shared.ring.write(encode(Batch([2], b"\0", [3], [msgspec.Raw(encode(commands[2]))], 0, 0)))
    queue.catch_up()
    assert told == [(3, 3)]
    refusals = [Unavailable("full"), Unavailable("still full")]
    answers = [Stored(place, packed([refusal]), (None, None)) for place, refusal in enumerate(refusals)]
    for answer in [*answers, Stored(2, [3], (None, None), stored=1)]:
        theirs.sendall(frame(encode(answer)))
    theirs.shutdown(socket.SHUT_WR)
    await queue.close()
    assert [(number, str(outcome)) for number, outcome in told] == [(3, "3"), (1, "full"), (2, "still full")]
    assert heard.numbers == [3]
    theirs.close()
    os.close(shared.wakers[0])


async def test_a_command_that_can_not_be_remembered_is_told_and_all_is_forgotten(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues, heard = await start()

    def fail(command: Command, outcome: Outcome) -> None:
        raise RuntimeError("a fault of the cache")

    with monkeypatch.context() as patch:
        for each in heard:
            patch.setattr(each, "applied", fail)
        assert await queues[0].accept(post(1)) == 1
        queues[1].catch_up()
    assert [each.times_missed for each in heard] == [1, 1]
    assert await queues[1].accept(post(2)) == 2
    queues[0].catch_up()
    assert heard[0].numbers == heard[1].numbers == [2]


async def test_a_process_that_closes_first_does_not_stop_the_others(start: Start) -> None:
    queues, heard = await start()
    ticket = queues[1].accept(post(1))
    await queues[1].close()
    assert await ticket == 1
    assert await queues[0].accept(post(2)) == 2
    assert heard[0].numbers == [1, 2]


def test_a_process_that_takes_nothing_delays_no_other(store: Kept) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    theirs = [each for _, each in pairs]
    first, frozen = (ours for ours, _ in pairs)
    shared = Shared(Ring(100_000), [os.eventfd(0, os.EFD_NONBLOCK) for _ in pairs])
    run_beside(theirs, Committer(theirs, Writer(cast(Any, store)), shared).run)
    store.failure = Unavailable("The disk is full, and this is a long sentence.")
    refused = frame(array([msgspec.msgpack.encode(post(number)) for number in range(1000)]))
    for _ in range(10):  # ten thousand refusals, far more than a socket holds
        frozen.sendall(refused)
    first.sendall(frame(array([msgspec.msgpack.encode(post(1))])))
    first.settimeout(20)
    got = b""
    while got.count(b"The disk is full") < 2:  # the fault, and our command's outcome
        got += first.recv(65536)
    for channel in (frozen, first):
        channel.shutdown(socket.SHUT_WR)
        while channel.recv(65536):
            pass
        channel.close()
    for waker in shared.wakers:
        os.close(waker)


def test_a_first_process_that_takes_nothing_delays_no_other(store: Kept) -> None:
    """It is told of every commit, which would fill its socket after some hundred. Later it has all figures."""
    (frozen, of_frozen), (other, of_other) = (socket.socketpair() for _ in range(2))
    shared = Shared(Ring(100_000), [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)])
    run_beside([of_frozen, of_other], Committer([of_frozen, of_other], Writer(cast(Any, store)), shared).run)
    one = frame(array([msgspec.msgpack.encode(post(1))]))
    other.settimeout(20)
    for _ in range(1500):
        other.sendall(one)
        assert other.recv(65536), "its outcome"
    for channel in (other, frozen):
        channel.shutdown(socket.SHUT_WR)
    frozen.settimeout(20)
    frames, answers = Frames(), list[Stored]()
    while data := frozen.recv(65536):
        answers += [msgspec.msgpack.decode(content, type=Stored) for content in frames.take(data)]
    assert sum(answer.stored for answer in answers) == 1500
    assert len(answers) < 500, "memory is bounded"
    for each in (frozen, other):
        each.close()
    for waker in shared.wakers:
        os.close(waker)


def test_a_process_that_sends_more_than_is_committed_delays_no_other(store: Kept) -> None:
    (busy, of_busy), (other, of_other) = (socket.socketpair() for _ in range(2))
    shared = Shared(Ring(100_000), [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)])
    applied: list[int] = []

    def apply(batch: Sequence[Command]) -> list[Outcome]:
        numbers = [cast(PostMessage, command).number for command in batch]
        applied.extend(numbers)
        if len(applied) < 200:  # as from clients who are answered, and send the next
            busy.sendall(frame(array([msgspec.msgpack.encode(post(1))] * len(batch))))
        return list(numbers)

    store.apply = apply  # type: ignore[method-assign]
    busy.sendall(frame(array([msgspec.msgpack.encode(post(1))] * 10)))
    other.sendall(frame(array([msgspec.msgpack.encode(post(2))])))
    channels = [of_busy, of_other]
    run_beside(channels, Committer(channels, Writer(cast(Any, store)), shared, max_batch=10).run)
    other.settimeout(20)
    assert other.recv(65536), "its outcome"
    assert applied.index(2) < 40
    for each in (busy, other):
        each.shutdown(socket.SHUT_WR)
    for each in (busy, other):
        while each.recv(65536):
            pass
        each.close()
    for waker in shared.wakers:
        os.close(waker)
