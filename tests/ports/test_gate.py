"""The suite of the Gate port, for the gate in memory and the one in Redis."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from hubbub.chat.errors import RateLimited
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Gate, Wants
from hubbub.cluster.redis.gate import RedisGate
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.http.limits import LocalGate

RATE = 20
_users = itertools.count(1)


class Quiet:
    """A publisher for a gate when nobody posts."""

    def shard_of(self, token: str) -> int:
        return 0


@pytest.fixture(params=["memory", "redis"])
def gate(request: pytest.FixtureRequest) -> Gate:
    alone = LocalGate(RATE)
    if request.param == "memory":
        return alone
    servers: Servers = request.getfixturevalue("servers")
    return RedisGate(servers, cast(Any, Quiet()), Applications(), Pages(10), user_rate=RATE, alone=alone)


@pytest.fixture
def user() -> int:
    """A user whom no gate has seen."""
    return next(_users)


async def passed(enter: Callable[[], Awaitable[object]], tries: int) -> int:
    """Return how many of these requests are admitted."""
    refusals = []
    for _ in range(tries):
        try:
            await enter()
        except RateLimited as refusal:
            refusals.append(refusal)
    assert all(refusal.limit == RATE and 0 < refusal.retry_after <= 2 for refusal in refusals)
    return tries - len(refusals)


async def test_the_mark_stays_until_a_session_ends(gate: Gate, user: int) -> None:
    mark = (await gate.enter(user)).mark
    assert mark
    assert (await gate.enter(user, mark)).mark == mark
    assert (await gate.enter(user, mark, Wants(ChatKey("token", 1), newest=10))).mark == mark
    await (await gate.sessions_change(user))()
    changed = (await gate.enter(user, mark)).mark
    assert changed not in ("", mark)
    assert (await gate.enter(user, changed)).mark == changed


async def test_nobody_has_anothers_mark(gate: Gate, user: int) -> None:
    another = next(_users)
    mark = (await gate.enter(another)).mark
    assert (await gate.enter(user)).mark != mark
    await (await gate.sessions_change(user))()
    assert (await gate.enter(another)).mark == mark


async def test_a_session_of_a_user_who_was_never_seen_may_end(gate: Gate, user: int) -> None:
    over = await gate.sessions_change(user)
    assert not (await gate.enter(user)).mark
    await over()
    assert (await gate.enter(user)).mark


async def test_a_user_has_no_mark_while_sessions_change(gate: Gate, user: int) -> None:
    mark = (await gate.enter(user)).mark
    over = await gate.sessions_change(user)
    for known in (mark, ""):
        assert not (await gate.enter(user, known)).mark
        assert not (await gate.enter(user, known, Wants(ChatKey("token", 1), newest=10))).mark
    await over()
    assert (await gate.enter(user, mark)).mark not in ("", mark)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_change_that_is_over_ends_no_other(gate: Gate, user: int, first: int) -> None:
    """The other may be stored later, and its process may fail to say that it is over: see http.sessions, step 4."""
    changes = [await gate.sessions_change(user) for _ in range(2)]
    await changes[first]()
    assert not (await gate.enter(user)).mark


async def test_requests_count_for_their_user_alone(gate: Gate, user: int) -> None:
    await passed(lambda: gate.enter(user), 4 * RATE)
    assert await passed(lambda: gate.enter(next(_users)), 4 * RATE) == 4 * RATE


async def test_a_user_who_waits_may_continue(gate: Gate, user: int) -> None:
    await passed(lambda: gate.enter(user), 4 * RATE)
    await asyncio.sleep(1.1)
    assert await passed(lambda: gate.enter(user), 2 * RATE) >= RATE


async def test_refused_requests_cost_nothing(gate: Gate, user: int) -> None:
    """A user who never stops trying gets exactly the rate."""
    count, until = 0, time.monotonic() + 3
    while time.monotonic() < until:
        count += await passed(lambda: gate.enter(user), 5)
        await asyncio.sleep(0.02)
    assert 3 * RATE - 2 <= count <= 5 * RATE + 2


async def test_after_a_pause_two_seconds_worth_is_admitted_at_once(gate: Gate, user: int) -> None:
    begun = time.monotonic()
    count = await passed(lambda: gate.enter(user), 4 * RATE)
    assert 2 * RATE <= count <= 2 * RATE + RATE * (time.monotonic() - begun) + 1
