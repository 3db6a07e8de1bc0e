"""Failed logins, counted over all processes of a cluster."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hubbub.caches.redis_wire import RedisWire
from hubbub.chat.errors import RateLimited, Unauthenticated, Unavailable
from hubbub.chat.ports import Logins


class RedisLogins:
    """See chat.ports.Logins. ``alone`` counts for this process while Redis can't be reached."""

    def __init__(
        self,
        wire: RedisWire,
        alone: Logins,
        *,
        requests: int,
        too_many: Callable[[float], RateLimited],
        per_account: int = 10,
        per_address: int = 300,
        window_s: int = 300,
    ) -> None:
        """``requests`` without credentials may come from an address in a minute, else it is told ``too_many``."""
        self._requests = requests
        self._too_many = too_many
        self._wire = wire
        self._alone = alone
        self._limits = per_account, per_address
        self._window_s = window_s

    async def came(self, address: str) -> None:
        try:
            refused = await self._wire.script("came", 1, f"{self._wire.run}:w:{address}", self._requests)
        except Unavailable:
            await self._alone.came(address)
            return
        if refused:
            raise self._too_many(refused)

    @asynccontextmanager
    async def attempt(self, address: str, email: str) -> AsyncIterator[None]:
        account = hashlib.sha256(email.encode()).hexdigest()[:32]
        keys = f"{self._wire.run}:f:{address}:{account}", f"{self._wire.run}:f:{address}"
        try:
            refused = await self._wire.script("attempt", 2, *keys, self._window_s, *self._limits)
        except Unavailable:
            async with self._alone.attempt(address, email):
                yield
            return
        if refused:
            raise RateLimited(
                "Too many failed logins. Wait before you try again.",
                limit=self._limits[refused[0] - 1],
                retry_after=max(1, refused[1]),
            )
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
