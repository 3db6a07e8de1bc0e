"""Turns at reads that walk far, a deep page of a list: one of a user's at a time, so that nobody takes the few threads,
or the connections, that all such reads share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hubbub.chat.errors import RateLimited, Unavailable

FAR = 1000  # rows that are passed over; up to there a page costs next to nothing
MOST_OF_USER = 20  # reads of one user, the one that runs among them
MOST_USERS = 100


class FarReads:
    """Invariant: ``_users`` has each user with a read that runs or waits, with a lock and how many there are."""

    def __init__(self) -> None:
        self._users: dict[int, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, user_id: int, offset: int) -> AsyncIterator[None]:
        """The user's turn at a read that passes over ``offset`` rows, in the order in which they came; at once where
        these are few.

        Raises:
            RateLimited: too many of the user's wait.
            Unavailable: too many users wait.
        """
        if offset <= FAR:
            yield
            return
        lock, count = self._users.get(user_id, (None, 0))
        if count >= MOST_OF_USER:
            raise RateLimited(
                f"You have asked for {count} deep pages that are not answered yet. Ask for one after another, or, for"
                " messages, with before=N, which costs the same however deep.",
                limit=MOST_OF_USER,
                retry_after=1,
            )
        if lock is None:
            if len(self._users) >= MOST_USERS:
                raise Unavailable("Too many deep pages are asked for. Try again a little later.")
            lock = asyncio.Lock()
        self._users[user_id] = lock, count + 1
        try:
            async with lock:
                yield
        finally:
            count = self._users[user_id][1] - 1
            if count:
                self._users[user_id] = lock, count
            else:
                del self._users[user_id]
