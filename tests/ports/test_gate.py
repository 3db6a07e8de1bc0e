"""The suite of the Gate port, for the gate in memory, also of several processes, and the one in Redis."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.chat.errors import RateLimited
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Gate, Wants
from hubbub.cluster.redis.gate import RedisGate
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.embedded.rates import SharedRates
from hubbub.http.limits import LocalGate
from hubbub.loadtest.servers import Redis

RATE = 20
_users = itertools.count(1)


class Quiet:
    """A publisher for a gate when nobody posts."""

    def shard_of(self, token: str) -> int:
        return 0


@pytest.fixture(params=["memory", "shared", "redis"])
def gate(request: pytest.FixtureRequest) -> Gate:
    if request.param == "shared":
        return LocalGate(RATE, SharedRates(3).of(1))
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


async def test_a_redis_whose_clock_was_set_back_refuses_no_request(redis: Redis, servers: Servers, user: int) -> None:
    gate = RedisGate(servers, cast(Any, Quiet()), Applications(), Pages(10), user_rate=RATE, alone=LocalGate(RATE))
    redis.command("SET", servers.clients[0].named().rate(user), str((int(time.time()) + 3600) * 1_000_000))
    assert RATE <= await passed(lambda: gate.enter(user), 2 * RATE) <= 2 * RATE


# Several processes ---------------------------------------------------------------------------------------------------


class Clock:
    """Stands for the clock of gates, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("hubbub.http.limits.time.monotonic_ns", lambda: round(self.now * 10**9))


@pytest.fixture
def gates() -> list[LocalGate]:
    """Of two processes."""
    rates = SharedRates(2)
    return [LocalGate(RATE, rates.of(process)) for process in range(2)]


async def test_a_rate_holds_over_all_processes(
    gates: list[LocalGate], user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, (one, other) = Clock(monkeypatch), gates
    assert await passed(lambda: one.enter(user), 4 * RATE) == 2 * RATE
    assert await passed(lambda: other.enter(user), 4 * RATE) == 0
    clock.now += 1
    assert await passed(lambda: other.enter(user), 4 * RATE) == RATE
    assert await passed(lambda: one.enter(user), 4 * RATE) == 0
    assert await passed(lambda: other.enter(user + 1), 4 * RATE) == 2 * RATE
    clock.now += 100
    assert await passed(lambda: one.enter(user), 4 * RATE) == 2 * RATE, "a pause gives no more than one burst"
    assert await passed(lambda: other.enter(user), 4 * RATE) == 0


async def test_a_user_of_one_process_gets_the_full_rate(
    gates: list[LocalGate], user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, (one, other) = Clock(monkeypatch), gates
    await other.enter(user)
    for _ in range(10 * RATE):
        clock.now += 1 / RATE
        assert await passed(lambda: one.enter(user), 1) == 1
    assert await passed(lambda: other.enter(user), 4 * RATE) == 2 * RATE - 1, "the other one refuses nothing for that"


@given(requests=st.lists(st.tuples(st.sampled_from([0, 1, 49, 51, 500, 2500]), st.integers(0, 2)), max_size=200))
def test_several_processes_let_in_what_one_would(requests: list[tuple[int, int]]) -> None:
    """``requests``: the pause before each, in ms, and its process."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock, rates = Clock(monkeypatch), SharedRates(3)
        several = [LocalGate(3, rates.of(process)) for process in range(3)]
        one = LocalGate(3)
        for pause, process in requests:
            clock.now += pause / 1000
            assert admitted(several[process], 1) == admitted(one, 1)


def admitted(gate: LocalGate, user: int) -> bool:
    """Whether it lets a request in; without an event loop."""
    try:
        gate.enter(user).send(None)
    except StopIteration:
        return True
    except RateLimited:
        return False
    raise AssertionError("it waits for something")


def test_forked_processes_share_a_rate_and_count_at_the_same_time(user: int) -> None:
    rate, rates = 1000, SharedRates(2)
    ours, theirs = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            gate = LocalGate(rate, rates.of(1))
            os.write(theirs, b"1" * sum(admitted(gate, user) for _ in range(3 * rate)))
        finally:
            os._exit(0)
    os.close(theirs)
    gate = LocalGate(rate, rates.of(0))
    count = sum(admitted(gate, user) for _ in range(3 * rate))
    with open(ours, "rb") as pipe:
        other = len(pipe.read())
    os.waitpid(child, 0)
    assert 2 * rate <= count + other <= 2 * rate + rate * (time.monotonic() - begun) + 2
    assert rates.of(0).counted(user) == count + other


async def test_users_whose_ids_are_far_apart_may_share_a_rate(gates: list[LocalGate], user: int) -> None:
    await passed(lambda: gates[0].enter(user), 4 * RATE)
    assert await passed(lambda: gates[0].enter(user + 2**20), RATE) < RATE / 2
    assert await passed(lambda: gates[1].enter(user + 2**21), RATE) < RATE / 2


async def test_what_others_committed_is_applied_before_a_request_is_let_in(user: int) -> None:
    committed: list[int] = []

    def catch_up() -> None:
        while committed:
            here.changed(committed.pop())

    here = LocalGate(RATE, catch_up=catch_up)
    mark, of_another = [(await here.enter(each)).mark for each in (user, user + 1)]
    committed.append(user)
    changed = (await here.enter(user, mark)).mark
    assert changed not in ("", mark)
    assert not here.let_in(user, mark)
    assert here.let_in(user, changed)
    assert (await here.enter(user + 1)).mark == of_another


async def test_a_mark_stays_empty_while_sessions_change_here_and_another_process_changes_the_account(user: int) -> None:
    gate = LocalGate(RATE)
    gate.changed(user)  # who was never seen
    mark = (await gate.enter(user)).mark
    over = await gate.sessions_change(user)
    gate.changed(user)
    assert not (await gate.enter(user, mark)).mark
    await over()
    assert (await gate.enter(user)).mark not in ("", mark)
