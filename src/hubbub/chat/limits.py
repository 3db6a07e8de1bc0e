"""How many logins and registrations are borne, and what whoever sends more is told; the same for every adapter."""

from __future__ import annotations

from hubbub.chat.errors import RateLimited

FAILURES_PER_ACCOUNT = 10  # of one account from one address, in a window
FAILURES_PER_ADDRESS = 300
FAILURES_WINDOW_MINUTES = 5
REQUESTS_PER_ADDRESS = 6000  # a minute: each costs some milliseconds of a core for a password's hash


def too_many_failures(limit: int, retry_after: float) -> RateLimited:
    return RateLimited(
        "Too many failed logins. Wait before you try again.", limit=limit, retry_after=max(retry_after, 1)
    )


def too_many_requests(retry_after: float) -> RateLimited:
    return RateLimited(
        f"From one address come at most {REQUESTS_PER_ADDRESS} registrations and logins a minute. "
        "Wait before you try again.",
        limit=REQUESTS_PER_ADDRESS,
        retry_after=max(retry_after, 1),
    )
