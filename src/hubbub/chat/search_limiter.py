"""Limits how many searches run at once, for each user and in all, and gives turns to one user after another."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hubbub.chat.errors import RateLimited, Unavailable

T = TypeVar("T")

OF_ONE_USER = 4
IN_ALL = 256  # of 64 users or more; a search that waits costs some kilobytes
AT_ONCE = 4  # they wait for the index and the store most of the time


class SearchLimiter:
    """The searches under way. Invariant: no search waits for a turn while fewer than AT_ONCE turns run."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}
        self._count = 0
        self._under_way = 0
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()  # users, the next one first

    @contextmanager
    def held(self, user_id: int) -> Iterator[None]:
        """Counts a search of the user as under way.

        Raises:
            RateLimited: the user has OF_ONE_USER under way.
            Unavailable: all users together have IN_ALL under way.
        """
        mine = self._held.get(user_id, 0)
        if mine >= OF_ONE_USER:
            raise RateLimited(
                f"You may have {OF_ONE_USER} searches running at once. Wait until one ends.",
                limit=OF_ONE_USER,
                retry_after=1,
            )
        if self._count >= IN_ALL:
            raise Unavailable("Too many searches are running. Try again in a moment.", retry_after=1)
        self._held[user_id] = mine + 1
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._held[user_id] -= 1
            if not self._held[user_id]:
                del self._held[user_id]

    async def turn(self, user_id: int, work: Coroutine[Any, Any, T]) -> T:
        """Runs the work when the user's turn has come, and returns its result. When the caller is cancelled, work that
        has begun runs on to its end, and keeps its turn until then: a thread can't be stopped from outside.
        """
        try:
            await self._begin(user_id)
        except BaseException:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    async def _begin(self, user_id: int) -> None:
        if self._under_way < AT_ONCE:
            self._under_way += 1
            return
        called = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user_id, deque()).append(called)
        try:
            await called
        except asyncio.CancelledError:
            if called.cancelled():
                self._forget(user_id, called)
            else:
                self._next()  # it has its turn and will not use it
            raise

    def _forget(self, user_id: int, called: asyncio.Future[None]) -> None:
        theirs = self._waiting.get(user_id, deque())
        if called in theirs:
            theirs.remove(called)
            if not theirs:
                del self._waiting[user_id]

    def _end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # the caller has it, or was cancelled and doesn't want it
        self._next()

    def _next(self) -> None:
        """A turn is over: gives it to the first search of the next user, who then goes to the end of the queue."""
        while self._waiting:
            user_id, theirs = self._waiting.popitem(last=False)
            called = theirs.popleft()
            if theirs:
                self._waiting[user_id] = theirs
            if not called.done():  # else the one that waited was just cancelled
                called.set_result(None)
                return
        self._under_way -= 1
