"""What only operators may see: recent warnings, and the dead letters."""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

from hubbub.http import schemas

_KEPT = 50
_TIME = len("2026-01-01 00:00:00,000")  # which each line begins with


class RecentErrors(logging.Handler):
    """The latest warnings and errors, one line each. Like all logs they have no secrets and no message bodies."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record).splitlines()[0])

    def lines(self) -> list[str]:
        """Newest first."""
        return list(self._lines)[::-1]


def latest(lines: Iterable[Sequence[str]]) -> list[str]:
    """The latest lines of several processes, newest first, from those that each process shows."""
    return list(islice(heapq.merge(*lines, key=lambda line: line[:_TIME], reverse=True), _KEPT))


class Letters(Protocol):
    """The dead letters. Both methods raise Unavailable when they can't be reached."""

    async def shown(self) -> list[schemas.Letter]: ...
    async def retry(self, number: int) -> bool:
        """Send it again. Returns whether there was one with this number."""


class NoLetters:
    """The embedded mode has no dead letters: a command that can't be stored is refused."""

    async def shown(self) -> list[schemas.Letter]:
        return []

    async def retry(self, number: int) -> bool:
        return False
