"""A trip of the cluster's gate to Redis, without a server: who waits is told once, later, and nothing is kept of it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Entry, Wants
from hubbub.cluster.redis.gate import RedisGate
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.http.eager import run
from hubbub.http.limits import LocalGate
from hubbub.http.sessions import Session
from hubbub.http.shortcuts import TripShortcuts
from tests.conftest import eventually_async

CHAT = ChatKey("token", 1)
IN, OUT = [b"user", 1], [b"user", 0]  # what the script returns for a request without an application


class Redis:
    """Stands for one server, its client, and the publisher. ``answer`` answers the trip that was sent last."""

    takes_numbers = True
    data_set = b"data"

    def __init__(self) -> None:
        self.clients = [self]
        self.keys: Keys | None = Keys(1)
        self.sent: list[asyncio.Future[Any]] = []

    def named(self) -> Keys:
        if self.keys is None:
            raise Unavailable("Redis is away.")
        return self.keys

    def slot_of(self, _token: str) -> int:
        return 0

    def of_user(self, _user_id: int) -> Redis:
        return self

    def shard_of(self, _token: str) -> int:
        return 0

    def script(self, *_words: Any) -> asyncio.Future[Any]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]

    async def answer(self, *results: list[Any]) -> None:
        await eventually_async(lambda: bool(self.sent))
        self.sent.pop().set_result([self.data_set, list(results)])


class Waits:
    """Who waits for an entry, and can be seen to be freed."""

    def __call__(self, _entered: Entry | Exception) -> None:
        pass


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def gate(redis: Redis) -> RedisGate:
    one = cast(Any, redis)
    return RedisGate(one, one, Applications(), Pages(10), user_rate=10, alone=LocalGate(10))


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("by_coroutine", [False, True])
@pytest.mark.usefixtures("no_collection")
async def test_a_refused_request_keeps_nothing_of_its_trip(redis: Redis, gate: RedisGate, by_coroutine: bool) -> None:
    refused: list[str] = []
    waits = Waits()
    alive = weakref.ref(waits)
    gate.ask(1, "", Wants(CHAT, newest=10), waits)
    del waits
    if by_coroutine:
        run(gate.enter(1, ""), lambda result: refused.append(type(result).__name__))
    else:
        gate.ask(1, "", None, lambda result: refused.append(type(result).__name__))
    await redis.answer([b"user", 1, b"version", [b"1.1", 1]], OUT)
    await eventually_async(lambda: refused == ["RateLimited"])
    assert alive() is None


@pytest.mark.usefixtures("no_collection")
async def test_a_trip_that_could_not_go_keeps_nothing(redis: Redis, gate: RedisGate) -> None:
    told: list[str] = []

    def ask() -> weakref.ref[Waits]:
        waits = Waits()
        gate.ask(1, "", None, waits)
        return weakref.ref(waits)

    alive = [ask() for _ in range(40)]
    gate.ask(1, "", None, lambda result: told.append(type(result).__name__))
    redis.keys = Keys(2)  # another generation
    await eventually_async(lambda: told == ["RateLimited"])
    assert not any(each() for each in alive)


async def test_who_fails_stops_no_other_of_the_trip(redis: Redis, gate: RedisGate) -> None:
    told: list[Any] = []

    def fail(_entered: Entry | Exception) -> None:
        raise ValueError("for a test")

    for done in (fail, told.append, fail, told.append):
        gate.ask(1, "", None, done)
    await redis.answer(IN, IN, IN, OUT)
    await eventually_async(lambda: len(told) == 2)
    assert (type(told[0]), type(told[1])) == (Entry, RateLimited)


async def test_an_entry_comes_after_it_was_asked_for_also_while_redis_is_away(redis: Redis, gate: RedisGate) -> None:
    class Known:
        def known(self, _header: bytes) -> Session:
            return Session("s", User(1, "ann", "a@x", "A", 1), "", 0, 0.0, True, "mark")

    redis.keys = None
    shortcut = TripShortcuts(cast(Any, Known()), cast(Any, gate)).list_chats(b"x", CHAT, 10)
    later = cast(Any, shortcut)(b"", "")
    came: list[Any] = []
    later.then = came.append
    await eventually_async(lambda: came == [Entry("")])
