"""Limits how many searches run at once, for each user and in all, and gives turns to one user after another."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.user_turns import UserTurns

T = TypeVar("T")

OF_ONE_USER = 4
IN_ALL = 256  # of 64 users or more; a search that waits costs some kilobytes
AT_ONCE = 4  # they wait for the index and the store most of the time


class SearchLimiter:
    """The searches under way, of which AT_ONCE are worked on."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}
        self._count = 0
        self._turns = UserTurns(AT_ONCE)

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
            await self._turns.begin(user_id)
        except BaseException:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # the caller has it, or was cancelled and doesn't want it
        self._turns.end()
