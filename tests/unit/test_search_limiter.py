"""Which users may search now, and whose turn it is."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from hubbub.chat.errors import Unavailable
from hubbub.chat.search_limiter import AT_ONCE, IN_ALL, OF_ONE_USER, SearchLimiter
from tests.conftest import eventually_async


async def test_the_places_suffice_for_many_users() -> None:
    limiter = SearchLimiter()
    with ExitStack() as held:
        for place in range(IN_ALL):
            held.enter_context(limiter.held(place // OF_ONE_USER))
        with pytest.raises(Unavailable), limiter.held(IN_ALL):
            pass
    assert IN_ALL // OF_ONE_USER >= 16


async def test_users_take_turns_whoever_wants_most() -> None:
    limiter = SearchLimiter()
    opened, order = asyncio.Event(), list[int]()

    async def work(user: int) -> None:
        order.append(user)
        await opened.wait()

    turns = [asyncio.ensure_future(limiter.turn(user, work(user))) for user in [*range(AT_ONCE), 7, 7, 7, 8, 8, 9]]
    await eventually_async(lambda: len(order) == AT_ONCE)
    opened.set()
    await asyncio.gather(*turns)
    assert order == [*range(AT_ONCE), 7, 8, 9, 7, 8, 7]


@pytest.mark.parametrize("begun", [True, False])
async def test_the_turn_of_a_user_who_left_is_free_once_the_work_has_ended(begun: bool) -> None:
    limiter = SearchLimiter()
    opened, order = asyncio.Event(), list[int]()

    async def work(user: int) -> None:
        order.append(user)
        await opened.wait()

    turns = [asyncio.ensure_future(limiter.turn(user, work(user))) for user in range(AT_ONCE + 1)]
    await eventually_async(lambda: len(order) == AT_ONCE)
    left = turns.pop(0 if begun else AT_ONCE)
    left.cancel()
    turns.append(asyncio.ensure_future(limiter.turn(9, work(9))))
    await asyncio.sleep(0)
    assert order == list(range(AT_ONCE)), "as many as may are still at work"
    opened.set()
    await asyncio.gather(*turns)
    assert order[-1] == 9
    assert (AT_ONCE in order) is begun
