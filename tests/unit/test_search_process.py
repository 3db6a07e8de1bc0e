"""The search process as the processes that serve see it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Candidates
from hubbub.chat.search import parse
from hubbub.embedded.frames import Frames, frame
from hubbub.embedded.search_process import Find, Found, SearchProcess
from tests.searching import asked_over_a_socket, connected, search_beside

HELLO = parse("hello")


async def test_a_search_that_fails_is_refused_and_the_next_is_answered() -> None:
    outcomes: Iterator[Exception | Candidates] = iter([RuntimeError("unlucky"), Candidates([3, 1])])

    def candidates(*_: object, **__: object) -> Candidates:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    index = cast(Any, SimpleNamespace(fault=None, candidates=candidates))
    async with asked_over_a_socket(index) as process:
        with pytest.raises(Unavailable, match="The search failed"):
            await process.candidates(ChatKey("t", 1), parse("hello"), typos=False)
        found = await process.candidates(ChatKey("t", 1), parse("hello"), typos=False)
    assert found.numbers == [3, 1]


async def test_the_lag_of_a_process_that_does_not_answer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.search_process._LAG_S", 0.01)
    ours, theirs = socket.socketpair()
    process = SearchProcess(lambda _: None, lambda _: None)
    await process.connect(ours)
    async with asyncio.timeout(20):
        assert await process.lag() is None
    closing = asyncio.create_task(process.close())
    await asyncio.sleep(0)  # it has begun: the process ends because it is asked to
    theirs.close()
    await closing


class Index:
    """Finds the number of the chat, as often as ``many`` says."""

    def __init__(self, many: int = 1) -> None:
        self.fault: str | None = None
        self._many = many

    def candidates(self, chat: ChatKey, *_: object, **__: object) -> Candidates:
        return Candidates([chat.number] * self._many)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_each_process_gets_the_answers_to_its_own_searches() -> None:
    (first, its), (other, others) = socket.socketpair(), socket.socketpair()
    search_beside(cast(Any, Index()), [its, others])
    one, two = await connected(first), await connected(other)

    async def found(process: SearchProcess, number: int) -> list[int]:
        return (await process.candidates(ChatKey("t", number), HELLO, typos=False)).numbers

    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            *(found(process, number) for number in range(100) for process in (one, two)),
        )
    assert answers == [[number] for number in range(100) for _ in range(2)]
    await two.close()
    await one.close()


async def test_a_process_that_leaves_is_forgotten_and_the_first_ends_it() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    search_beside(cast(Any, Index()), [theirs for _, theirs in pairs])
    first, left, other = [await connected(ours) for ours, _ in pairs]
    async with asyncio.timeout(20):
        await left.close()
        for process in (first, other):
            found = await process.candidates(ChatKey("t", 7), HELLO, typos=False)
            assert found.numbers == [7]
        await other.close()
        await first.close()  # returns when the process has ended


async def test_every_process_is_told_the_fault_when_it_changes() -> None:
    (first, its), (other, others) = socket.socketpair(), socket.socketpair()
    index = Index()
    index.fault = "No disk."
    search_beside(cast(Any, index), [its, others])
    processes = [await connected(first), await connected(other)]
    for fault in ("No disk.", None, "No disk again."):
        index.fault = fault
        await until(lambda fault=fault: all(process.fault == fault for process in processes))  # type: ignore[misc]
    for process in reversed(processes):
        await process.close()


@pytest.mark.parametrize("silent", [0, 1], ids=["the first", "another"])
async def test_a_process_that_takes_nothing_holds_up_no_other(silent: int) -> None:
    """It gets all of its answers when it takes them."""
    pairs = [socket.socketpair() for _ in range(2)]
    index, searches = Index(many=1000), 500
    search_beside(cast(Any, index), [theirs for _, theirs in pairs])
    other = await connected(pairs[1 - silent][0])
    quiet = pairs[silent][0]
    asked = [
        msgspec.msgpack.encode(Find(number, ChatKey("t", 1), HELLO, False, 1000, None)) for number in range(searches)
    ]
    quiet.sendall(b"".join(map(frame, asked)))
    for number in range(100):
        async with asyncio.timeout(20):
            found = await other.candidates(ChatKey("t", number), HELLO, typos=False)
        assert found.numbers == [number] * 1000
    index.fault = "No disk."
    await until(lambda: other.fault == "No disk.")
    frames, answered, faults = Frames(), list[int](), list[str]()
    while len(answered) < searches or "No disk." not in faults:
        for content in frames.take(await asyncio.to_thread(quiet.recv, 100_000)):
            kind, *fields = msgspec.msgpack.decode(content)
            if kind == Found.__name__:
                answered.append(fields[0])
            else:
                faults.append(fields[0])
    assert sorted(answered) == list(range(searches))
    await other.close()
    quiet.close()
