"""Limits on logins, with counts in memory, in the first process's memory, and in Redis."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from hubbub.chat.errors import ChatError, Unauthenticated, Unavailable, UsedUp, WrongCode
from hubbub.chat.limits import (
    AT_ONCE_OF_ADDRESS,
    FAILURES_HERE,
    FAILURES_OF_ACCOUNT,
    FAILURES_OF_ADDRESS,
    FAILURES_OF_SESSIONS,
    REGISTRATIONS_OF_ADDRESS,
    REQUESTS_OF_ADDRESS,
    RESETS_OF_ACCOUNT,
    RESETS_OF_ADDRESS,
    WRONG_CODES_OF_ADDRESS,
    Limit,
)
from hubbub.chat.logins import Logins
from hubbub.chat.ports import Counts
from hubbub.cluster.redis.counts import RedisCounts
from hubbub.cluster.redis.servers import Servers
from hubbub.embedded.counts import FirstsCounts, counting
from hubbub.http.limits import MemoryCounts
from hubbub.loadtest.servers import Redis
from tests.peers import two_peers

WRONG = Unauthenticated("wrong")


@pytest.fixture(params=["memory", "the first's", "redis"])
def counts(request: pytest.FixtureRequest) -> Counts:
    if request.param == "memory":
        return MemoryCounts()
    if request.param == "the first's":
        of_the_first: FirstsCounts = request.getfixturevalue("counts_of_the_first")
        return of_the_first
    servers: Servers = request.getfixturevalue("servers")
    return RedisCounts(servers, MemoryCounts())


@pytest.fixture
def logins(counts: Counts) -> Logins:
    return Logins(counts)


@pytest.fixture
def address() -> str:
    """An address that has sent nothing yet."""
    return secrets.token_hex(8)


@pytest.fixture
def ann() -> str:
    """The email of an account that nobody has tried to log in to."""
    return f"{secrets.token_hex(8)}@example.com"


async def attempt(
    logins: Logins, address: str, email: str, ends: ChatError | None = None, *, proven: bool = False
) -> UsedUp | None:
    """Return why the attempt was refused without a try, or None if it was tried."""
    try:
        async with logins.attempt(address, email, proven=proven):
            if ends is not None:
                raise ends
    except UsedUp as refused:
        return refused
    except (Unauthenticated, Unavailable):
        return None
    return None


async def until_refused(limit: Limit, again: Callable[[int], Awaitable[UsedUp | None]]) -> UsedUp:
    """Try until refused. The limit's tries must be allowed, plus those that became free meanwhile, and no more."""
    begun, tried = time.monotonic(), 0
    while (refused := await again(tried)) is None:
        tried += 1
        free = (time.monotonic() - begun) * 1000 / limit.each_ms
        assert tried <= limit.most + free + 1
    assert tried >= limit.most
    assert refused.limit == limit.most
    assert refused.sentence == limit.sentence
    assert 1 <= refused.retry_after <= max(limit.each_ms / 1000, 1)
    return refused


async def fail_often(logins: Logins, address: str, email: str) -> None:
    await until_refused(FAILURES_HERE, lambda _: attempt(logins, address, email, WRONG))


async def test_an_account_is_locked_after_so_many_failures(logins: Logins, address: str, ann: str) -> None:
    await fail_often(logins, address, ann)
    assert await attempt(logins, address, ann) is not None, "the right password neither"
    assert await attempt(logins, address, ann, proven=True) is not None


async def test_guessing_one_account_locks_nobody_else_out(logins: Logins, address: str, ann: str) -> None:
    """Other users at the address are not locked out, nor is the owner at another address."""
    await fail_often(logins, address, ann)
    assert await attempt(logins, address, "b" + ann) is None
    assert await attempt(logins, address + "0", ann) is None


@pytest.mark.parametrize("ends", [None, Unavailable("down")])
async def test_only_failures_count(logins: Logins, address: str, ann: str, ends: ChatError | None) -> None:
    for _ in range(FAILURES_HERE.most * 2):
        assert await attempt(logins, address, ann, ends) is None
    await fail_often(logins, address, ann)


async def test_a_login_that_succeeds_forgives_nothing(logins: Logins, address: str, ann: str) -> None:
    async def again(tried: int) -> UsedUp | None:
        if tried == FAILURES_HERE.most - 1:
            assert await attempt(logins, address, ann) is None
        return await attempt(logins, address, ann, WRONG)

    await until_refused(FAILURES_HERE, again)


async def test_the_failures_of_an_address_are_bounded_whatever_the_account(
    logins: Logins, address: str, ann: str
) -> None:
    await until_refused(FAILURES_OF_ADDRESS, lambda tried: attempt(logins, address, f"{tried}{ann}", WRONG))
    assert await attempt(logins, address + "0", ann, WRONG) is None


async def test_an_account_that_is_guessed_from_everywhere_is_slowed_but_not_where_its_owner_is_logged_in(
    logins: Logins, address: str, ann: str
) -> None:
    def elsewhere(tried: int) -> Awaitable[UsedUp | None]:
        return attempt(logins, f"{address}{tried}", ann, WRONG)

    refused = await until_refused(FAILURES_OF_ACCOUNT, elsewhere)
    assert refused.retry_after <= 10, "seconds, not the time that all failures take to be forgotten"
    assert await attempt(logins, address, ann, proven=True) is None
    assert await attempt(logins, address, "b" + ann) is None


async def test_guessing_with_a_stolen_session_is_slowed_and_counts_for_no_others(
    logins: Logins, address: str, ann: str
) -> None:
    def elsewhere(tried: int) -> Awaitable[UsedUp | None]:
        return attempt(logins, f"{address}{tried}", ann, WRONG, proven=True)

    for _ in range(FAILURES_OF_SESSIONS.most):
        assert await attempt(logins, address, ann, proven=True) is None, "only failures count"
    await until_refused(FAILURES_OF_SESSIONS, elsewhere)
    for number in range(FAILURES_OF_ACCOUNT.most):
        assert await attempt(logins, f"{address}.{number}", ann, WRONG) is None


async def test_attempts_under_way_count_so_trying_all_at_once_gains_nothing(
    logins: Logins, address: str, ann: str
) -> None:
    wait, most = asyncio.Event(), FAILURES_HERE.most
    begun, tried = time.monotonic(), 0

    async def slowly() -> None:
        nonlocal tried
        async with logins.attempt(address, ann):
            tried += 1
            await wait.wait()
            raise WRONG

    attempts = [asyncio.ensure_future(slowly()) for _ in range(most * 3)]
    async with asyncio.timeout(10):
        while sum(each.done() for each in attempts) + tried < most * 3:
            await asyncio.sleep(0.01)
    assert most <= tried <= most + (time.monotonic() - begun) * 1000 / FAILURES_HERE.each_ms + 1
    wait.set()
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert outcomes.count(WRONG) == tried


async def test_an_attempt_cancelled_while_its_password_is_checked_counts(
    logins: Logins, address: str, ann: str
) -> None:
    async def given_up(_: int) -> UsedUp | None:
        try:
            async with logins.attempt(address, ann):
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            return None
        except UsedUp as refused:
            return refused
        raise AssertionError("it was not given up")

    await until_refused(FAILURES_HERE, given_up)


async def try_code(logins: Logins, address: str, ends: ChatError | None = None) -> UsedUp | None:
    """Return why the attempt was refused without a try, or None if it was tried."""
    try:
        async with logins.code(address):
            if ends is not None:
                raise ends
    except UsedUp as refused:
        return refused
    except (WrongCode, Unavailable):
        return None
    return None


async def test_the_wrong_codes_of_an_address_are_bounded(logins: Logins, counts: Counts, address: str) -> None:
    wrong = WrongCode("wrong")
    for ends in (None, Unavailable("down")):
        for _ in range(WRONG_CODES_OF_ADDRESS.most // 2 + 10):
            assert await try_code(logins, address, ends) is None, "only wrong ones count"
    await until_refused(WRONG_CODES_OF_ADDRESS, lambda _: try_code(logins, address, wrong))
    assert await try_code(logins, address + "0", wrong) is None


async def test_password_resets_of_an_address_and_of_an_email_are_bounded(
    logins: Logins, address: str, ann: str
) -> None:
    async def ask(address: str, email: str) -> UsedUp | None:
        try:
            await logins.reset(address, email)
        except UsedUp as refused:
            return refused
        return None

    await until_refused(RESETS_OF_ACCOUNT, lambda tried: ask(f"{address}{tried}", ann.upper() if tried else ann))
    await until_refused(RESETS_OF_ADDRESS, lambda tried: ask(address, f"{tried}{ann}"))


async def register(logins: Logins, address: str) -> UsedUp | None:
    """Return why the registration was refused, or None if it was not."""
    try:
        async with logins.registration(address):
            return None
    except UsedUp as refused:
        return refused


async def use_up(counts: Counts, limit: Limit, address: str) -> None:
    """Count far too many requests at once, so that the limit stays reached during the test."""
    await counts.take([(limit._replace(most=10, each_ms=5 * limit.each_ms * limit.most), address)])


@pytest.mark.parametrize("limit", [REQUESTS_OF_ADDRESS, REGISTRATIONS_OF_ADDRESS])
async def test_the_registrations_of_an_address_are_bounded(
    logins: Logins, counts: Counts, address: str, limit: Limit
) -> None:
    for _ in range(3000):
        assert await register(logins, address) is None
    await use_up(counts, limit, address)
    refused = await register(logins, address)
    assert refused is not None
    assert (refused.limit, refused.retry_after >= 1) == (limit.most, True)
    assert await register(logins, address + "0") is None


async def test_logins_that_succeed_are_bounded_too(logins: Logins, counts: Counts, address: str, ann: str) -> None:
    """A login that succeeds costs as much as one that fails."""
    await use_up(counts, REQUESTS_OF_ADDRESS, address)
    refused = await attempt(logins, address, ann)
    assert refused is not None
    assert refused.limit == REQUESTS_OF_ADDRESS.most


async def test_one_address_does_not_take_all_places_for_passwords(logins: Logins, address: str, ann: str) -> None:
    async with AsyncExitStack() as under_way:
        for number in range(AT_ONCE_OF_ADDRESS // 2):
            await under_way.enter_async_context(logins.registration(address))
            await under_way.enter_async_context(logins.attempt(address, f"{number}{ann}"))
        for refused in (await register(logins, address), await attempt(logins, address, ann)):
            assert refused is not None
            assert (refused.limit, refused.retry_after) == (AT_ONCE_OF_ADDRESS, 1)
        assert await register(logins, address + "0") is None
        assert await attempt(logins, address + "0", ann) is None
    assert await register(logins, address) is None
    await fail_often(logins, address, ann)  # the refused ones were not counted


async def test_a_client_that_waits_may_continue(counts: Counts, address: str) -> None:
    limit = Limit("soon", 2, 200, failures=True, sentence="Too many.")
    for _ in range(2):
        await counts.take([(limit, address)])
    with pytest.raises(UsedUp):
        await counts.take([(limit, address)])

    async def until_let_in() -> None:
        while True:
            try:
                await counts.take([(limit, address)])
            except UsedUp:
                await asyncio.sleep(0.01)
            else:
                return

    await asyncio.wait_for(until_let_in(), 10)


async def test_a_refusal_counts_nothing_anywhere(counts: Counts, address: str) -> None:
    first = Limit("first", 5, 60_000, failures=True, sentence="Too many.")
    second = Limit("second", 1, 60_000, failures=True, sentence="Too many.")
    await counts.take([(first, address), (second, address)])
    for _ in range(10):
        with pytest.raises(UsedUp) as refused:
            await counts.take([(first, address), (second, address)])
        assert refused.value.what == f"second:{address}"
    for _ in range(4):
        await counts.take([(first, address)])


async def test_only_counts_of_failures_are_given_back(counts: Counts, address: str) -> None:
    failures = Limit("failures", 1, 60_000, failures=True, sentence="Too many.")
    all_of_them = Limit("all", 1, 60_000, failures=False, sentence="Too many.")
    give_back = await counts.take([(failures, address), (all_of_them, address)])
    await give_back()
    await counts.take([(failures, address)])
    with pytest.raises(UsedUp):
        await counts.take([(all_of_them, address)])


async def test_expired_counts_are_removed(servers: Servers, ann: str) -> None:
    """Counts that nobody adds to don't fill Redis."""
    soon = Limit("soon", 2, 50, failures=True, sentence="Too many.")
    counts = RedisCounts(servers, MemoryCounts())
    for number in range(20):
        await counts.take([(soon, f"{ann}{number}")])
        give_back = await counts.take([(soon._replace(each_ms=60_000), f"{ann}.{number}")])
        await give_back()

    async def until_gone() -> None:
        while await servers.clients[0].call("KEYS", f"*{ann}*"):
            await asyncio.sleep(0.05)

    await asyncio.wait_for(until_gone(), 10)


async def test_a_redis_whose_clock_was_set_back_locks_nobody_out_for_longer(
    redis: Redis, servers: Servers, ann: str
) -> None:
    names, counts = servers.clients[0].named(), RedisCounts(servers, MemoryCounts())
    limit = FAILURES_HERE._replace(each_ms=500)
    redis.command("SET", names.count("here", ann), str((int(time.time()) + 10**6) * 1000))
    with pytest.raises(UsedUp) as refused:
        await counts.take([(limit, ann)])
    assert refused.value.retry_after <= 1
    await asyncio.sleep(0.6)
    await counts.take([(limit, ann)])


async def test_memory_is_bounded_and_keeps_those_who_failed_most() -> None:
    now = 0
    counts = MemoryCounts(lambda: now)
    limit = Limit("here", 10, 30_000, failures=True, sentence="Too many.")
    for _ in range(10):
        await counts.take([(limit, "guesser")])
    for number in range(250_000):
        await counts.take([(limit, str(number))])
        assert len(counts) <= 100_000
    with pytest.raises(UsedUp):
        await counts.take([(limit, "guesser")])
    now = 30_001
    for number in range(100_000):
        await counts.take([(limit, f"later{number}")])
    assert len(counts) <= 100_000


@pytest.fixture
async def lost(redis: Redis) -> AsyncIterator[Servers]:
    """Servers that were never reached."""
    servers = Servers([redis.url])
    yield servers
    await servers.close()


async def test_each_process_counts_while_redis_is_unreachable(lost: Servers, address: str, ann: str) -> None:
    logins = Logins(RedisCounts(lost, MemoryCounts()))
    for _ in range(20):
        assert await attempt(logins, address, ann) is None
    await fail_often(logins, address, ann)


async def test_a_success_is_none_less_when_the_first_process_stops_meanwhile(address: str) -> None:
    failures = Limit("failures", 1, 60_000, failures=True, sentence="Too many.")
    async with two_peers(counting(MemoryCounts()), {}) as two:
        give_back = await FirstsCounts(two.first).take([(failures, address)])
        await two.other.close()
        await give_back()
        with pytest.raises(Unavailable):
            await FirstsCounts(two.first).take([(failures, address)])


async def test_a_refusal_of_the_first_process_says_what_is_used_up(counts_of_the_first: FirstsCounts, ann: str) -> None:
    """The log of lock-outs needs it."""
    failures = Limit("failures", 1, 60_000, failures=True, sentence="Too many.")
    await counts_of_the_first.take([(failures, ann)])
    with pytest.raises(UsedUp, match="Too many") as refused:
        await counts_of_the_first.take([(failures, ann)])
    assert (refused.value.what, refused.value.limit) == (f"failures:{ann}", 1)
    assert 59 < refused.value.retry_after <= 60
