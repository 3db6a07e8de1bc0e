"""Logs failed logins and lock-outs, one line each, without the password and with the email masked."""

from __future__ import annotations

import logging
import re

from hubbub.chat.errors import RateLimited, UsedUp
from hubbub.chat.limits import Limit
from hubbub.http.limits import MemoryCounts

log = logging.getLogger("hubbub.logins")

_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,100}")
_LOCK_OUT = Limit("lock-out", 1, 60_000, failures=False, sentence="")  # a line a minute, however long it goes on


def masked(email: str) -> str:
    """The email as only those recognize it who know it: ``a***@example.com``. Unsafe characters are removed."""
    local, at, domain = email.rpartition("@")
    first = local[:1] if local[:1].isascii() and local[:1].isalnum() else ""
    return f"{first}***@{domain if at and _DOMAIN.fullmatch(domain) else '***'}"


class LoginLog:
    def __init__(self) -> None:
        self._counts = MemoryCounts()

    def failed(self, address: str, email: str) -> None:
        log.info("A login to %s from %s failed.", masked(email), address or "nowhere known")

    async def locked(self, refusal: UsedUp, address: str, email: str | None, what: str = "Registrations") -> None:
        """Log a lock-out. ``email`` is None when there is none; then ``what`` says what is refused."""
        try:
            await self._counts.take([(_LOCK_OUT, refusal.what)])
        except RateLimited:
            return
        if email is not None:
            what = f"Logins to {masked(email)}"
        log.warning("%s from %s are refused for now: %s", what, address or "nowhere known", refusal.sentence)
