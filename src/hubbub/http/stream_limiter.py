"""Limits how many streams are open at a process. Each stream holds a connection and a slice of its chat, and checks its
session once a second."""

from __future__ import annotations

from collections import Counter

from hubbub.chat.errors import RateLimited, Unavailable

MAX_STREAMS = 5000  # half of the connections that a process takes (http.connection)
_AGAIN_S = 5


class StreamLimiter:
    """The open streams of a process: ``taken`` of at most ``MAX_STREAMS``, and at most ``of_user`` for each user."""

    def __init__(self, of_user: int) -> None:
        self._of_user = of_user
        self._users: Counter[int] = Counter()
        self.taken = 0

    def take(self, user_id: int) -> StreamSlot:
        """A slot, to be given up when the stream ends.

        Raises:
            RateLimited: the user has ``of_user`` streams open.
            Unavailable: the process has MAX_STREAMS open.
        """
        if self._users[user_id] >= self._of_user:
            raise RateLimited(
                f"You have {self._of_user} streams open here, as many as one user may have. Close one first.",
                limit=self._of_user,
                retry_after=_AGAIN_S,
            )
        if self.taken >= MAX_STREAMS:
            raise Unavailable("Too many streams are open. Try again a little later.", retry_after=_AGAIN_S)
        self._users[user_id] += 1
        self.taken += 1
        return StreamSlot(self, user_id)

    def give_up(self, user_id: int) -> None:
        self.taken -= 1
        self._users[user_id] -= 1
        if not self._users[user_id]:
            del self._users[user_id]


class StreamSlot:
    """One open stream of a user."""

    __slots__ = ("_limiter", "_user_id")

    def __init__(self, limiter: StreamLimiter, user_id: int) -> None:
        self._limiter = limiter
        self._user_id = user_id

    def give_up(self) -> None:
        """To be called once."""
        self._limiter.give_up(self._user_id)
