"""Turns of users for work that is costly: a few at once of all users, or of each. A user who asks for much waits for
the own work, and the others don't.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class UserTurns:
    """Turns of which ``at_once`` may run. Invariant: nobody waits for a turn while fewer run."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._under_way = 0
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()  # users, the next one first

    @property
    def free(self) -> bool:
        """Whether a turn would begin at once."""
        return self._under_way < self._at_once

    @asynccontextmanager
    async def turn(self, user_id: int) -> AsyncIterator[None]:
        """The user's turn, from when it has come until the context is left."""
        await self.begin(user_id)
        try:
            yield
        finally:
            self.end()

    async def begin(self, user_id: int) -> None:
        """Wait until the user's turn has come. ``end`` must follow, unless this raises."""
        if self.free:
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
                self.end()  # it has its turn and will not use it
            raise

    def _forget(self, user_id: int, called: asyncio.Future[None]) -> None:
        theirs = self._waiting.get(user_id, deque())
        if called in theirs:
            theirs.remove(called)
            if not theirs:
                del self._waiting[user_id]

    def end(self) -> None:
        """A turn is over: gives it to the first waiting of the next user, who then goes to the end of the queue."""
        while self._waiting:
            user_id, theirs = self._waiting.popitem(last=False)
            called = theirs.popleft()
            if theirs:
                self._waiting[user_id] = theirs
            if not called.done():  # else the one that waited was just cancelled
                called.set_result(None)
                return
        self._under_way -= 1


class SomeOfEach:
    """``at_once`` turns at once of each user, in the order in which they were asked for. Invariant: ``_users`` has each
    user with a turn that runs or waits, a semaphore for them and how many these are."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._users: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}

    def __len__(self) -> int:
        """How many users have turns."""
        return len(self._users)

    def of(self, user: Hashable) -> int:
        """How many turns of the user run or wait."""
        return self._users[user][1] if user in self._users else 0

    @asynccontextmanager
    async def turn(self, user: Hashable) -> AsyncIterator[None]:
        places, count = self._users.get(user) or (asyncio.Semaphore(self._at_once), 0)
        self._users[user] = places, count + 1
        try:
            async with places:
                yield
        finally:
            count = self._users[user][1] - 1
            if count:
                self._users[user] = places, count
            else:
                del self._users[user]
