"""How many streams may be open at a process: each holds a connection, a slice of its chat and a second's check."""

from __future__ import annotations

from collections import Counter

from hubbub.chat.errors import RateLimited, Unavailable

MAX_STREAMS = 5000  # half of the connections that a process takes (http.connection)
_AGAIN_S = 5


class Places:
    """``taken`` of ``MAX_STREAMS``; one user has at most ``of_user`` of them."""

    def __init__(self, of_user: int) -> None:
        self._of_user = of_user
        self._users: Counter[int] = Counter()
        self.taken = 0

    def take(self, user_id: int) -> Place:
        """A place, to be given up when the stream ends.

        Raises:
            RateLimited: the user has as many as one may have.
            Unavailable: the process has as many as it may have.
        """
        if self._users[user_id] >= self._of_user:
            raise RateLimited(
                f"You listen to {self._of_user} streams here, as many as one user may. Close one first.",
                limit=self._of_user,
                retry_after=_AGAIN_S,
            )
        if self.taken >= MAX_STREAMS:
            raise Unavailable("Too many streams are open. Try again a little later.", retry_after=_AGAIN_S)
        self._users[user_id] += 1
        self.taken += 1
        return Place(self, user_id)

    def give_up(self, user_id: int) -> None:
        self.taken -= 1
        self._users[user_id] -= 1
        if not self._users[user_id]:
            del self._users[user_id]


class Place:
    """One user's place."""

    __slots__ = ("_places", "_user_id")

    def __init__(self, places: Places, user_id: int) -> None:
        self._places = places
        self._user_id = user_id

    def give_up(self) -> None:
        """Once."""
        self._places.give_up(self._user_id)
