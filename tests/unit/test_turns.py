"""Turns: which client waits for which at the event loop."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from hubbub.http import turns as module
from hubbub.http.turns import TURN_S, Turns


class Loop:
    """Turns that record what began, in order. Each piece of work takes a whole turn, or ``least_s``."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.begun: list[str] = []

    def ask(self, owner: str, what: str = "", least_s: float = TURN_S) -> None:
        self.turns.begin(partial(self.begun.append, what or owner), lambda: owner, least_s)

    async def all_begun(self, count: int) -> None:
        for _ in range(3 * count):
            if len(self.begun) >= count:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{len(self.begun)} of {count} were begun")


async def test_work_that_comes_alone_begins_at_once() -> None:
    loop = Loop()
    loop.ask("ann")
    assert loop.begun == ["ann"]


async def test_little_work_begins_at_once_however_many_ask() -> None:
    loop = Loop()
    for number in range(100):
        loop.ask("ann", str(number), least_s=0.0)
    await asyncio.sleep(0)
    assert loop.begun == [str(number) for number in range(100)]


async def test_no_more_begins_in_one_turn_of_the_loop_than_it_has_time_for() -> None:
    loop = Loop()
    for _ in range(5):
        loop.ask("ann")
    for count in range(1, 6):
        assert len(loop.begun) == count
        await asyncio.sleep(0)


async def test_time_that_work_counts_itself_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_S", 1000.0)  # far more than it takes here
    loop = Loop()

    def work() -> None:
        loop.begun.append("bob")
        loop.turns.spend(250)

    loop.ask("ann", least_s=1000)
    for _ in range(8):
        loop.turns.begin(work, lambda: "bob", 250)
    await asyncio.sleep(0)
    assert loop.begun.count("bob") == 4


async def test_nobody_waits_for_all_that_another_has_asked_for() -> None:
    loop = Loop()
    for _ in range(50):
        loop.ask("ann")
    loop.ask("bob")
    await loop.all_begun(51)
    assert loop.begun.index("bob") <= 2


async def test_a_client_that_asked_for_much_goes_behind_one_that_asks_for_little() -> None:
    loop = Loop()
    for _ in range(10):
        loop.ask("ann")
    for number in range(20):
        loop.ask("bob", f"bob {number}", TURN_S / 10)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert f"bob {number}" in loop.begun


async def test_the_work_of_each_client_begins_in_order() -> None:
    loop = Loop()
    for number in range(20):
        loop.ask("ann", f"ann {number}")
        loop.ask("bob", f"bob {number}")
    await loop.all_begun(40)
    for owner in ("ann", "bob"):
        assert [what for what in loop.begun if what.startswith(owner)] == [f"{owner} {at}" for at in range(20)]


async def test_a_client_that_asked_for_much_gets_its_turn_though_new_ones_keep_coming() -> None:
    loop = Loop()
    for _ in range(3):
        loop.ask("ann")
    for number in range(50):
        loop.ask(f"somebody {number}")
        await asyncio.sleep(0)
    assert loop.begun.count("ann") == 3


async def test_work_that_fails_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    loop.ask("ann")

    def fail() -> None:
        raise ValueError("as it may")

    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    loop.turns.begin(fail, lambda: "bob", TURN_S)
    loop.ask("ann", "second")
    await loop.all_begun(2)
    assert [str(each) for each in failed] == ["as it may"]


async def test_a_task_waits_for_its_turn_and_may_leave() -> None:
    loop = Loop()
    loop.ask("ann")
    gone, waits = loop.turns.turn("bob", TURN_S), loop.turns.turn("bob", TURN_S)
    loop.ask("ann", "second")
    gone.cancel()
    await asyncio.wait_for(waits, 5)
    await loop.all_begun(2)


async def test_clients_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    loop = Loop()
    for number in range(100):
        loop.ask(str(number))
    await loop.all_begun(100)
    assert len(loop.turns._had) <= 10
