"""Measures how late the event loop of a process runs its timers: requests wait that long while a callback holds it, or
while the machine has no CPU for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hubbub.measures import SECONDS, Histogram

log = logging.getLogger("hubbub")

_EVERY_S = 0.1
_WARN_S = 0.25
_WARNS_EVERY_S = 5.0


class LoopLag:
    """A timer that is set again and again; ``lags`` are how late it ran, in seconds."""

    def __init__(self) -> None:
        self.lags = Histogram("hubbub_loop_lag_seconds", "How late the event loop ran a timer.", SECONDS)
        self._quiet_until = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The running loop is watched inside."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def ran(due: float) -> None:
            nonlocal timer
            now = loop.time()
            timer = loop.call_at(now + _EVERY_S, ran, now + _EVERY_S)
            self._late(max(now - due, 0.0), now)

        due = loop.time() + _EVERY_S
        timer = loop.call_at(due, ran, due)
        try:
            yield
        finally:
            timer.cancel()

    def _late(self, lag: float, now: float) -> None:
        self.lags.observe(lag)
        if lag > _WARN_S and now >= self._quiet_until:
            self._quiet_until = now + _WARNS_EVERY_S
            log.warning("The event loop ran a timer %.2f s late: something held it, or it had no CPU.", lag)
