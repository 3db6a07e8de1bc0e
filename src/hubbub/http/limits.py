"""How often one user may call, and how often a login may fail."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from hubbub.chat import limits
from hubbub.chat.errors import RateLimited, Unauthenticated
from hubbub.chat.ports import Entry, Wants

_MOST_BUCKETS = 100_000
_marks = itertools.count(1)


class Bucket:
    """A token bucket: ``tokens`` were left at ``at`` (seconds, monotonic). The mark of ``entry`` is no other's."""

    __slots__ = ("at", "entry", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.entry = Entry(str(next(_marks)))


class LocalGate:
    """The gate of a service that is one process, see chat.ports.Gate.

    ``rate`` requests a second for each user, and as many at once as two seconds bring.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._burst = 2.0 * rate
        self._buckets: dict[int, Bucket] = {}

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        now = time.monotonic()
        bucket = self._buckets.get(user_id)
        if bucket is None:
            if len(self._buckets) >= _MOST_BUCKETS:
                self._forget_full(now)
            bucket = self._buckets[user_id] = Bucket(self._burst, now)
        tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if tokens < 1:
            bucket.tokens = tokens
            raise RateLimited(
                f"You may send {self._rate} requests a second. Slow down.", limit=self._rate, retry_after=1
            )
        bucket.tokens = tokens - 1
        return bucket.entry

    def _forget_full(self, now: float) -> None:
        """A bucket that would be full by now is as good as a new one."""
        self._buckets = {user: bucket for user, bucket in self._buckets.items() if now - bucket.at < 2}

    async def sessions_changed(self, user_id: int) -> None:
        self._buckets.pop(user_id, None)


class LoginLimit:
    """Logins and registrations at this process, see chat.ports.Logins.

    Right passwords don't count. Tries under way do, so that sending them all at once gains nothing.
    """

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        window = limits.FAILURES_WINDOW_MINUTES
        self._account = RateLimitItemPerMinute(limits.FAILURES_PER_ACCOUNT, window, namespace="account")
        self._address = RateLimitItemPerMinute(limits.FAILURES_PER_ADDRESS, window, namespace="address")
        self._came = RateLimitItemPerMinute(limits.REQUESTS_PER_ADDRESS, namespace="came")
        self._under_way: dict[tuple[str, ...], int] = {}

    async def came(self, address: str) -> None:
        if not self._limiter.hit(self._came, address):
            raise limits.too_many_requests(self._wait(self._came, address))

    def _wait(self, item: RateLimitItemPerMinute, *key: str) -> float:
        """Seconds until the window ends."""
        return float(self._limiter.get_window_stats(item, *key).reset_time - time.time())

    @asynccontextmanager
    async def attempt(self, address: str, email: str) -> AsyncIterator[None]:
        keys = ((self._account, (address, email)), (self._address, (address,)))
        for item, key in keys:
            under_way = self._under_way.get(key, 0)
            if not self._limiter.test(item, *key, cost=1 + under_way):
                raise limits.too_many_failures(item.amount, self._wait(item, *key))
        for _, key in keys:
            self._under_way[key] = self._under_way.get(key, 0) + 1
        try:
            yield
        except Unauthenticated:
            for item, key in keys:
                self._limiter.hit(item, *key)
            raise
        finally:
            for _, key in keys:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]
