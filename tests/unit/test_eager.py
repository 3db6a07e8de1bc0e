from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from hubbub.http.eager import run
from tests.conftest import eventually_async


async def test_a_coroutine_that_never_waits_is_done_at_once() -> None:
    async def work() -> int:
        return 7

    results: list[object] = []
    run(work(), results.append)
    assert results == [7]


async def test_a_coroutine_that_waits_continues_as_a_task() -> None:
    loop = asyncio.get_running_loop()
    first: asyncio.Future[int] = loop.create_future()
    second: asyncio.Future[int] = loop.create_future()
    done: asyncio.Future[object] = loop.create_future()

    async def work() -> int:
        return await first + await second

    run(work(), done.set_result)
    first.set_result(3)
    await asyncio.sleep(0)
    second.set_result(4)
    assert await done == 7


@pytest.mark.parametrize("waits", [False, True])
async def test_exceptions_arrive_wherever_they_are_raised(waits: bool) -> None:
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    failing: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        if waits:
            try:
                await failing
            except KeyError:
                raise ValueError("from the second half") from None
        raise ValueError("from the first half")

    run(work(), done.set_result)
    if waits:
        failing.set_exception(KeyError())
    assert str(await done) == f"from the {'second' if waits else 'first'} half"


async def test_work_that_fails_after_a_wait_keeps_nothing() -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []
    failed: list[str] = []

    async def work() -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        await asyncio.sleep(0)
        raise ValueError("for a test")

    gc.collect()
    gc.disable()
    try:
        run(work(), lambda result: failed.append(type(result).__name__))
        await eventually_async(lambda: failed == ["ValueError"])
        assert held[0]() is None
    finally:
        gc.enable()
