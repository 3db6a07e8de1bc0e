"""Who may search now: a user has a few places, and the work is done in turns, one user after another."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hubbub.chat.errors import RateLimited, Unavailable

T = TypeVar("T")

OF_ONE_USER = 4
IN_ALL = 256  # of 64 users at the least: a place costs some kilobytes while its turn has not come
AT_ONCE = 4  # they wait for the index and the store for the most part


class Places:
    """Invariant: nobody waits for a turn while fewer than AT_ONCE are under way."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}
        self._count = 0
        self._under_way = 0
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()  # users, the next one first

    @contextmanager
    def held(self, user_id: int) -> Iterator[None]:
        """A place of the user's.

        Raises:
            RateLimited: the user has as many as there are for one.
            Unavailable: all are taken, by many users.
        """
        mine = self._held.get(user_id, 0)
        if mine >= OF_ONE_USER:
            raise RateLimited(
                f"You may have {OF_ONE_USER} searches under way. Wait for one to end.", limit=OF_ONE_USER, retry_after=1
            )
        if self._count >= IN_ALL:
            raise Unavailable("Too many are searching just now. Try again in a moment.", retry_after=1)
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
        """The work's result, when the user's turn has come. Who is cancelled leaves work that has begun to end by
        itself, and its turn is not over before: a thread can't be stopped from outside.
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
                self._next()  # it was called and will not come
            raise

    def _forget(self, user_id: int, called: asyncio.Future[None]) -> None:
        theirs = self._waiting.get(user_id, deque())
        if called in theirs:
            theirs.remove(called)
            if not theirs:
                del self._waiting[user_id]

    def _end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # who waited has it; who left does not want it
        self._next()

    def _next(self) -> None:
        """A turn is over: the next user's first is called, and the user goes to the end of the row."""
        while self._waiting:
            user_id, theirs = self._waiting.popitem(last=False)
            called = theirs.popleft()
            if theirs:
                self._waiting[user_id] = theirs
            if not called.done():  # else who waited is just leaving
                called.set_result(None)
                return
        self._under_way -= 1
