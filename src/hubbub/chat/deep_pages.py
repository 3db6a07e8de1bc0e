"""Limits reads of deep pages, which pass over many rows: one at a time for each user, so that no user takes all of the
few threads, or connections, that such reads share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.user_turns import SomeOfEach

DEEP = 1000  # rows to pass over; a page with no more than that costs next to nothing
MOST_OF_USER = 20  # reads of one user that run or wait
MOST_USERS = 100


class DeepPages:
    """The reads of deep pages that run or wait."""

    def __init__(self) -> None:
        self._turns = SomeOfEach(1)

    @asynccontextmanager
    async def turn(self, user_id: int, offset: int) -> AsyncIterator[None]:
        """The user's turn for a read that passes over ``offset`` rows: at once up to DEEP, else when the user's earlier
        reads have ended.

        Raises:
            RateLimited: the user has MOST_OF_USER reads that run or wait.
            Unavailable: MOST_USERS users have such reads.
        """
        if offset <= DEEP:
            yield
            return
        count = self._turns.of(user_id)
        if count >= MOST_OF_USER:
            raise RateLimited(
                f"{count} of your requests for deep pages are not answered yet. Send one after another, or, for"
                " messages, use before=N, which costs the same at any depth.",
                limit=MOST_OF_USER,
                retry_after=1,
            )
        if not count and len(self._turns) >= MOST_USERS:
            raise Unavailable("Too many deep pages are requested. Try again a little later.")
        async with self._turns.turn(user_id):
            yield
