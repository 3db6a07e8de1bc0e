"""Limits how much of a queue one user may fill."""

from __future__ import annotations

from hubbub.chat.errors import RateLimited

SERVICE = 0  # no user has this id: what the service itself sends is not counted


class UserBytes:
    """How many bytes of each user wait in a queue, at most ``most``. A user who has none there is not remembered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[int, int] = {}

    def take(self, user_id: int, size: int) -> None:
        """Count ``size`` more bytes of the user. Raises RateLimited when that would be too many."""
        if user_id == SERVICE:
            return
        taken = self._of.get(user_id, 0) + size
        if taken > self._most:
            raise RateLimited(
                f"Your messages that wait to be stored may have at most {self._most} bytes. This one was not stored; "
                "send it again when the others are answered.",
                limit=self._most,
                retry_after=1,
            )
        self._of[user_id] = taken

    def give_back(self, user_id: int, size: int) -> None:
        if user_id == SERVICE:
            return
        left = self._of[user_id] - size
        if left:
            self._of[user_id] = left
        else:
            del self._of[user_id]
