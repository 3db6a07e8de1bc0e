"""Limits how many lasting things one user may create in an hour."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from hubbub.chat.limits import Limit
from hubbub.chat.ports import Counts

_HOUR_MS = 3_600_000


class Made(StrEnum):
    """The kinds that are counted. Adding a member reveals whether an email has an account, so every try counts, even if
    it adds nobody."""

    APPLICATIONS = "applications"
    CHATS = "chats"
    MEMBERS = "members"
    INVITES = "invites"


class Hourly(NamedTuple):
    """How many a user may create at once, and again in each hour. A user who has used them up may create the next when
    its share of an hour has passed."""

    applications: int
    chats: int
    members: int
    invites: int


class Quotas:
    """Counts what each user creates. It also counts when the command is refused later, as when the queue is full."""

    def __init__(self, counts: Counts, hourly: Hourly) -> None:
        self._counts = counts
        self._limits = {what: _limit(what, getattr(hourly, what)) for what in Made}

    async def take(self, user_id: int, what: Made) -> None:
        """Count one that is about to be created.

        Raises:
            RateLimited: the user has made too many.
        """
        await self._counts.take([(self._limits[what], str(user_id))])


def _limit(what: Made, most: int) -> Limit:
    tries = "try to add" if what is Made.MEMBERS else "make"
    return Limit(
        what,
        most,
        _HOUR_MS // most,
        failures=False,
        sentence=f"You may {tries} {most} {what} an hour. Wait before the next; "
        f"the service's setting is user_{what}_per_hour.",
    )
