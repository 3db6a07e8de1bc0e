"""How much of what stays one user may make in an hour; the same for every adapter."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from hubbub.chat.errors import RateLimited

HOUR_S = 3600


class Made(StrEnum):
    """What is counted. To add a member is to ask whether an account has that email: so every try counts, also one to
    add nobody."""

    APPLICATIONS = "applications"
    CHATS = "chats"
    MEMBERS = "members"
    INVITES = "invites"


class Hourly(NamedTuple):
    """How many a user may make at once, and again in each hour. Who has made that many makes the next when an hour's
    share of it has passed: a token bucket."""

    applications: int
    chats: int
    members: int
    invites: int

    def of(self, what: Made) -> int:
        return int(getattr(self, what))


class Quotas(Protocol):
    """Counts what each user makes."""

    async def take(self, user_id: int, what: Made) -> None:
        """Count one that is about to be made.

        Raises:
            RateLimited: the user has made too many.
        """


def made_too_many(what: Made, limit: int, retry_after: float) -> RateLimited:
    """``retry_after`` in seconds."""
    tries = "try to add" if what is Made.MEMBERS else "make"
    return RateLimited(
        f"You may {tries} {limit} {what} an hour. Wait before the next; the service's setting is user_{what}_per_hour.",
        limit=limit,
        retry_after=max(retry_after, 1),
    )
