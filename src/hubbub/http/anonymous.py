"""Requests that no user's rate counts: each address may send RATE a second. They are those to routes that need no
session, to paths that don't exist, and those refused with 401. A request with a large body is as much work as many
without: it counts once more for each KiB.
"""

from __future__ import annotations

import time
from collections.abc import Container

from starlette.requests import Request

from hubbub.chat.errors import RateLimited
from hubbub.http.shares import EXEMPT, address_of

RATE = 2000  # requests per second of an address; many people may be behind one
_BURST_S = 2.0  # after a pause, this many seconds' worth may come at once
_MOST_ADDRESSES = 100_000


class AnonymousRate:
    """Counts what each address has sent. ``_gone_at`` is when an address's count is back to zero, in seconds,
    monotonic. ``trusted`` has the addresses of proxies, which forward requests for many clients.
    """

    def __init__(self, trusted: Container[str] = ()) -> None:
        self._trusted = trusted
        self._gone_at: dict[str, float] = {}

    def count(self, address: str, size: int) -> None:
        """Count a request with ``size`` bytes of body, from an address as http.shares names it. Raises RateLimited."""
        if address == EXEMPT:
            return
        now = time.monotonic()
        gone_at = max(self._gone_at.get(address, 0.0), now) + (1 + size // 1024) / RATE
        if gone_at > now + _BURST_S:
            raise RateLimited(
                f"One address may send at most {RATE} requests a second without a session. Slow down.",
                limit=RATE,
                retry_after=1,
            )
        self._gone_at[address] = gone_at
        if len(self._gone_at) > _MOST_ADDRESSES:
            self._gone_at = {each: at for each, at in self._gone_at.items() if at > now}

    def count_request(self, request: Request, size: int) -> None:
        """As ``count``, for the client that has sent the request, also through a trusted proxy."""
        self.count(address_of(request.client.host if request.client else "", self._trusted), size)
