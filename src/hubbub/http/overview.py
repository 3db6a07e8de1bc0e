"""What /metrics and the operator page show: the figures and warnings of all processes that serve together.

A cluster's processes are behind addresses of their own, and each shows itself. Those of the embedded mode are behind
one: whichever is asked, the first gathers the figures of all. So no counter goes back from one answer to the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import psutil

from hubbub.http import schemas
from hubbub.http.metrics import Reading, exposition, merged
from hubbub.http.operator import RecentErrors, latest
from hubbub.measures import SECONDS, Histogram

_FIGURES_PART = 0.1  # of the time, at most, goes into making figures; in between clients get the last ones


class Figures(NamedTuple):
    """The readings of one process that serves, and its recent warnings, newest first."""

    readings: list[Reading | Histogram]
    errors: list[str]


class Overview(Protocol):
    """What is shown. Both methods raise Unavailable while a process does not answer: without its figures, counters
    would seem to have begun again.
    """

    async def metrics(self) -> bytes:
        """The content of /metrics."""

    async def state(self) -> schemas.OperatorState:
        """The content of the operator page."""


async def nobody() -> Sequence[Figures]:
    """The figures of the others, when a process serves alone."""
    return []


class Gathered:
    """See Overview: the figures of this process and the ``others``. What the system counts for a process, as its CPU
    time, is this one's.
    """

    def __init__(
        self,
        readings: Callable[[], Awaitable[list[Reading | Histogram]]],
        errors: RecentErrors,
        others: Callable[[], Awaitable[Sequence[Figures]]],
    ) -> None:
        self._readings = readings
        self._errors = errors
        self._others = others
        self._process = psutil.Process()
        self._shown = b""
        self._shown_until = 0.0
        self._making = asyncio.Lock()

    async def own(self) -> Figures:
        """This process's part of it."""
        return Figures(await self._readings(), self._errors.lines())

    async def metrics(self) -> bytes:
        async with self._making:
            begun = time.monotonic()
            if begun >= self._shown_until:
                self._shown = exposition((await self._all()).readings)
                now = time.monotonic()
                self._shown_until = now + (now - begun) / _FIGURES_PART
        return self._shown

    async def state(self) -> schemas.OperatorState:
        readings, errors = await self._all()
        figures: dict[str, float] = {}
        requests: list[schemas.Requests] = []
        for each in readings:
            if isinstance(each, Reading):
                name = each.name + "_total" if each.counter else each.name
                figures[name] = figures.get(name, 0) + each.value
            elif each.labels == ("route", "status"):
                for (route_name, status), counts in list(each.series.items()):
                    requests.append(schemas.Requests(str(route_name), str(status), list(counts[:-1])))
        times = self._process.cpu_times()
        own = {"cpu_seconds_total": times.user + times.system, "resident_memory_bytes": self._process.memory_info().rss}
        for name, value in own.items():
            figures[f"process_{name}"] = value + figures.get(f"hubbub_part_{name}", 0)
        return schemas.OperatorState(time.monotonic(), list(SECONDS), requests, figures, errors)

    async def _all(self) -> Figures:
        own, others = await asyncio.gather(self.own(), self._others())
        each = [own, *others]
        return Figures(merged([one.readings for one in each]), latest([one.errors for one in each]))
