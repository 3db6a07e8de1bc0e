"""Counts the requests of users, and against other limits, in the memory of the process that serves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from hubbub.chat.errors import RateLimited
from hubbub.chat.limits import Limit
from hubbub.chat.ports import Entry, Wants

_BURST_NS = 2_000_000_000  # after a pause, the requests of so long a time may come at once
_MOST_BUCKETS = 100_000
# Above that, the counts that are closest to zero are dropped. Each request without credentials is followed by a
# password's hash, at most some hundred a second, and its count is gone within minutes: they stay below this.
_MOST_COUNTS = 100_000
_marks = itertools.count(1)


class Bucket:
    """The rate of one user. It is back at its full burst at ``full_at`` (ns, monotonic). ``counted`` is how many
    requests that includes, see Rates. The mark of ``entry`` is unique; it is empty while ``changes`` of the user's
    sessions are under way."""

    __slots__ = ("changes", "counted", "entry", "full_at")

    def __init__(self, full_at: int = 0, counted: int = 0) -> None:
        self.full_at = full_at
        self.counted = counted
        self.entry = Entry(str(next(_marks)))
        self.changes = 0


class Rates(Protocol):
    """What all processes have counted, this one too. They may count at the same time."""

    def counted(self, user_id: int) -> int:
        """How many requests of the user were let in so far."""

    def full_at(self, user_id: int) -> int:
        """The latest ``full_at`` of the user's buckets, as of their last requests. Ask it before ``counted``: then it
        includes no request that is not in that."""

    def count(self, user_id: int, full_at: int) -> None:
        """Count a request that was let in here, and is included in ``full_at``."""


class LocalGate:
    """The gate of a process that serves, see chat.ports.Gate. A user may send ``rate`` requests a second.

    A bucket is the time at which it is full again: a request moves that by 1 / rate, from now if it has passed, and is
    refused if the time would be more than the burst away. So a pause needs no work, and what a user may send is the
    same whichever process asks.

    If other processes serve too, they share their counts by ``rates``. Before a process counts, it moves its bucket by
    1 / rate for each request that others have let in since it looked last, or to the latest time that any process
    knows, if that is later. Neither is ever too late: a request moves the time by 1 / rate at least, and each process
    includes only requests that were let in. So nobody is refused who would not be by one process. Nor is anything
    gained by changing from one process to another, at any pace: if processes do not count at the very same moment, the
    latest time includes all requests, also in a bucket that is new here. If they do, each finds the other's request in
    its count the next time. Only a process that did not count this user lately can begin without the requests that
    others are counting at that moment: one of each, once until the bucket is full again.

    ``catch_up`` applies what other processes have committed. It is called first in ``enter``, so that the mark, and all
    that is read after it, is as new as every answer that any process gave before.
    """

    def __init__(self, rate: int, rates: Rates | None = None, catch_up: Callable[[], None] = lambda: None) -> None:
        self._rate = rate
        self._each_ns = 1_000_000_000 // rate
        self._rates = rates
        self._catch_up = catch_up
        self._buckets: dict[int, Bucket] = {}

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        return self.enter_now(user_id)

    def enter_now(self, user_id: int) -> Entry:
        """As ``enter``, which never waits here."""
        self._catch_up()
        bucket = self._buckets.get(user_id) or self._new_bucket(user_id)
        self._count(user_id, bucket)
        return bucket.entry

    def let_in(self, user_id: int, mark: str) -> bool:
        """Count one request of the user and return True, if ``mark`` is the user's mark still. Raises RateLimited."""
        bucket = self._buckets.get(user_id)
        if bucket is None or bucket.entry.mark != mark or not mark:
            return False
        self._count(user_id, bucket)
        return True

    def _count(self, user_id: int, bucket: Bucket) -> None:
        rates = self._rates
        if rates is not None and rates.counted(user_id) != bucket.counted:
            latest = rates.full_at(user_id)
            counted = rates.counted(user_id)
            bucket.full_at = max(bucket.full_at + (counted - bucket.counted) * self._each_ns, latest)
            bucket.counted = counted
        now = time.monotonic_ns()
        full_at = (bucket.full_at if bucket.full_at > now else now) + self._each_ns
        if full_at > now + _BURST_NS:
            raise RateLimited(
                f"You may send {self._rate} requests a second. Slow down.", limit=self._rate, retry_after=1
            )
        bucket.full_at = full_at
        if rates is not None:
            bucket.counted += 1
            rates.count(user_id, full_at)

    def _new_bucket(self, user_id: int) -> Bucket:
        if len(self._buckets) >= _MOST_BUCKETS:  # the rate of a bucket that is full is the same as a new one's
            lately = time.monotonic_ns() - _BURST_NS
            self._buckets = {user: bucket for user, bucket in self._buckets.items() if bucket.full_at > lately}
        bucket = Bucket() if self._rates is None else Bucket(self._rates.full_at(user_id), self._rates.counted(user_id))
        self._buckets[user_id] = bucket
        return bucket

    async def sessions_change(self, user_id: int) -> Callable[[], Awaitable[None]]:
        bucket = self._buckets.get(user_id) or self._new_bucket(user_id)
        bucket.changes += 1
        bucket.entry = Entry("")

        async def done() -> None:
            now = self._buckets.get(user_id)
            if now is not None:  # it may be another by now
                now.changes = max(now.changes - 1, 0)
                now.entry = Entry("" if now.changes else str(next(_marks)))

        return done

    def changed(self, user_id: int) -> None:
        """Change the mark of the user, whose account was changed, by whichever process. It stays empty while a change
        of the user's sessions is under way here."""
        bucket = self._buckets.get(user_id)
        if bucket is not None and not bucket.changes:
            bucket.entry = Entry(str(next(_marks)))

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
