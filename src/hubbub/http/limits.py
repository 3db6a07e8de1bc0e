"""Counts the requests of users, and against other limits, in the memory of the process that serves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from hubbub.chat.errors import RateLimited
from hubbub.chat.limits import Limit
from hubbub.chat.ports import Entry, Wants

_MOST_BUCKETS = 100_000
# Above that, the counts that are closest to zero are dropped. Each request without credentials is followed by a
# password's hash, at most some hundred a second, and its count is gone within minutes: they stay below this.
_MOST_COUNTS = 100_000
_marks = itertools.count(1)


class Bucket:
    """A token bucket: ``tokens`` were left at ``at`` (seconds, monotonic). The mark of ``entry`` is unique; it is empty
    while ``changes`` of the user's sessions are under way."""

    __slots__ = ("at", "changes", "entry", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.entry = Entry(str(next(_marks)))
        self.changes = 0


class LocalGate:
    """The gate of a single process that serves, see chat.ports.Gate. A user may send ``rate`` requests a second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._burst = 2.0 * rate
        self._buckets: dict[int, Bucket] = {}

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        bucket = self._buckets.get(user_id) or self._new_bucket(user_id, time.monotonic())
        self._count(bucket)
        return bucket.entry

    def let_in(self, user_id: int, mark: str) -> bool:
        """Count one request of the user and return True, if ``mark`` is the user's mark still. Raises RateLimited."""
        bucket = self._buckets.get(user_id)
        if bucket is None or bucket.entry.mark != mark or not mark:
            return False
        self._count(bucket)
        return True

    def _count(self, bucket: Bucket) -> None:
        now = time.monotonic()
        tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if tokens < 1:
            bucket.tokens = tokens
            raise RateLimited(
                f"You may send {self._rate} requests a second. Slow down.", limit=self._rate, retry_after=1
            )
        bucket.tokens = tokens - 1

    def _new_bucket(self, user_id: int, now: float) -> Bucket:
        if len(self._buckets) >= _MOST_BUCKETS:  # a bucket that would be full by now is the same as a new one
            self._buckets = {user: bucket for user, bucket in self._buckets.items() if now - bucket.at < 2}
        bucket = self._buckets[user_id] = Bucket(self._burst, now)
        return bucket

    async def sessions_change(self, user_id: int) -> Callable[[], Awaitable[None]]:
        bucket = self._buckets.get(user_id) or self._new_bucket(user_id, time.monotonic())
        bucket.changes += 1
        bucket.entry = Entry("")

        async def done() -> None:
            now = self._buckets.get(user_id)
            if now is not None:  # it may be another by now
                now.changes = max(now.changes - 1, 0)
                now.entry = Entry("" if now.changes else str(next(_marks)))

        return done

    def forget(self) -> None:
        """Change the mark of every user."""
        self._buckets.clear()


class MemoryCounts:
    """The counts of one process, see chat.ports.Counts. ``now`` is in milliseconds."""

    def __init__(self, now: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000) -> None:
        self._now = now
        self._gone_at: dict[tuple[str, str], int] = {}  # when nothing of a count is left

    def __len__(self) -> int:
        return len(self._gone_at)

    async def take(self, counted: Sequence[tuple[Limit, str]]) -> Callable[[], Awaitable[None]]:
        now = self._now()
        taken: dict[tuple[str, str], int] = {}
        for limit, key in counted:
            name = limit.name, key
            gone_at = max(self._gone_at.get(name, now), now) + limit.each_ms
            over = gone_at - now - limit.most * limit.each_ms
            if over > 0:
                raise limit.refusal(key, over)
            taken[name] = gone_at
        self._gone_at |= taken
        if len(self._gone_at) > _MOST_COUNTS:
            self._forget(now)

        return partial(self.give_back, counted)

    async def give_back(self, counted: Sequence[tuple[Limit, str]]) -> None:
        """Undo a ``take`` where only failures count."""
        for limit, key in counted:
            if limit.failures:
                self._give_back((limit.name, key), limit.each_ms)

    def _give_back(self, name: tuple[str, str], each_ms: int) -> None:
        gone_at = self._gone_at.get(name)
        if gone_at is None:
            return
        if gone_at - each_ms > self._now():
            self._gone_at[name] = gone_at - each_ms
        else:
            del self._gone_at[name]

    def _forget(self, now: int) -> None:
        """Drop the counts that are back to zero, and the half of the rest that would be soonest, so that this is not
        needed each time.
        """
        left = sorted(self._gone_at.items(), key=lambda each: each[1], reverse=True)[: _MOST_COUNTS // 2]
        self._gone_at = {name: gone_at for name, gone_at in left if gone_at > now}
