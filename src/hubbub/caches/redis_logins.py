"""Failed logins, counted over all processes of a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hubbub.caches.redis_wire import RedisWire
from hubbub.chat.errors import Unauthenticated, Unavailable
from hubbub.chat.limits import (
    FAILURES_PER_ACCOUNT,
    FAILURES_PER_ADDRESS,
    FAILURES_WINDOW_MINUTES,
    REQUESTS_PER_ADDRESS,
    too_many_failures,
    too_many_requests,
)
from hubbub.chat.ports import Logins

_FAILURES = FAILURES_PER_ACCOUNT, FAILURES_PER_ADDRESS  # in the order of scripts/attempt.lua's keys


class RedisLogins:
    """See chat.ports.Logins. ``alone`` counts for this process while Redis can't be reached."""

    def __init__(self, wire: RedisWire, alone: Logins) -> None:
        self._wire = wire
        self._alone = alone

    async def came(self, address: str) -> None:
        try:
            refused = await self._wire.script("came", 1, f"{self._wire.run}:w:{address}", REQUESTS_PER_ADDRESS)
        except Unavailable:
            await self._alone.came(address)
            return
        if refused:
            raise too_many_requests(refused)

    @asynccontextmanager
    async def attempt(self, address: str, email: str) -> AsyncIterator[None]:
        account = hashlib.sha256(email.encode()).hexdigest()[:32]
        keys = f"{self._wire.run}:f:{address}:{account}", f"{self._wire.run}:f:{address}"
        try:
            refused = await self._wire.script("attempt", 2, *keys, FAILURES_WINDOW_MINUTES * 60, *_FAILURES)
        except Unavailable:
            async with self._alone.attempt(address, email):
                yield
            return
        if refused:
            raise too_many_failures(_FAILURES[refused[0] - 1], refused[1])
        failed = False
        try:
            yield
        except Unauthenticated:
            failed = True
            raise
        finally:
            if not failed:
                await self._take_back(keys)

    async def _take_back(self, keys: tuple[str, str]) -> None:
        try:
            await self._wire.script("take_back", 2, *keys)
        except Unavailable:
            return  # one failure too many is remembered for some minutes, in a Redis that is hardly there
