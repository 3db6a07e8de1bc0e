"""The quotas on what users create, with counts in memory, in the first process's memory, and in Redis."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from hubbub.chat.errors import RateLimited
from hubbub.chat.quotas import Hourly, Made, Quotas
from hubbub.cluster.redis.counts import RedisCounts
from hubbub.cluster.redis.servers import Servers
from hubbub.http.limits import MemoryCounts

HOUR_S = 3600
HOURLY = Hourly(applications=5, chats=3600, members=7, invites=3)
_users = itertools.count(1)


@pytest.fixture(params=["memory", "the first's", "redis"])
def quotas(request: pytest.FixtureRequest) -> Quotas:
    if request.param == "memory":
        return Quotas(MemoryCounts(), HOURLY)
    if request.param == "the first's":
        return Quotas(request.getfixturevalue("counts_of_the_first"), HOURLY)
    servers: Servers = request.getfixturevalue("servers")
    return Quotas(RedisCounts(servers, MemoryCounts()), HOURLY)


async def taken(quotas: Quotas, user: int, what: Made, tries: int) -> tuple[int, RateLimited | None]:
    """Return how many were allowed, and the last refusal."""
    count, refusal = 0, None
    for _ in range(tries):
        try:
            await quotas.take(user, what)
            count += 1
        except RateLimited as error:
            refusal = error
    return count, refusal


async def test_as_many_are_allowed_as_an_hour_has(quotas: Quotas) -> None:
    user = next(_users)
    count, refusal = await taken(quotas, user, Made.APPLICATIONS, 12)
    assert count == 5
    assert refusal is not None
    assert refusal.limit == 5
    assert HOUR_S / 5 - 60 < refusal.retry_after <= HOUR_S / 5
    assert "5 applications an hour" in refusal.sentence


async def test_each_kind_and_each_user_is_counted_separately(quotas: Quotas) -> None:
    user, other = next(_users), next(_users)
    await taken(quotas, user, Made.APPLICATIONS, 9)
    assert (await taken(quotas, user, Made.MEMBERS, 9))[0] == 7
    assert (await taken(quotas, other, Made.APPLICATIONS, 9))[0] == 5


async def test_a_user_who_waits_may_create_more(quotas: Quotas) -> None:
    user = next(_users)
    assert (await taken(quotas, user, Made.CHATS, 3700))[0] >= 3600
    await asyncio.sleep(1.1)
    assert (await taken(quotas, user, Made.CHATS, 1))[0] == 1


async def test_an_hour_restores_the_quota_and_no_more() -> None:
    now = 0
    quotas = Quotas(MemoryCounts(lambda: now), HOURLY)
    for _ in range(3):
        assert (await taken(quotas, 1, Made.MEMBERS, 20))[0] == 7
        now += HOUR_S * 1000
    now += 10 * HOUR_S * 1000
    assert (await taken(quotas, 1, Made.MEMBERS, 20))[0] == 7
