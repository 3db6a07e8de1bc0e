"""Reads the service's ``/metrics``, as far as they can be used."""

from __future__ import annotations

import asyncio
import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from hubbub.loadtest.client import CallFailed, Client, TooLong
from hubbub.loadtest.mix import READS, ROUTES, WRITES
from hubbub.loadtest.recorder import percents

_GAUGES = {
    "hubbub_queue_waiting_commands": "writes waiting",
    "hubbub_queue_depth_messages": "queue depth",
    "hubbub_database_connections": "database connections",
    "hubbub_index_lag_seconds": "index lag, seconds",
}
_CACHE = ("hubbub_cache_hits_total", "hubbub_cache_misses_total")
_STARTED = "process_start_time_seconds"
_DURATION = "hubbub_http_request_duration_seconds"
_WANTED = (*_GAUGES, *_CACHE, _STARTED, _DURATION)
# The service's names of the routes that the test asks.
SERVICE_ROUTES = {
    "send": ("postMessage",),
    "edit": ("editMessage", "editNumberedMessage"),
    "delete": ("deleteMessage",),
    "chats": ("listChats",),
    "messages": ("listMessages",),
    "history": ("listMessages",),
    "message": ("getMessage",),
    "search": ("searchMessages",),
}
_SIDES = tuple(frozenset(name for route in kind for name in SERVICE_ROUTES[ROUTES[route]]) for kind in (WRITES, READS))
_LONGEST = 4 * 1024 * 1024  # bytes of an answer; Hubbub's are some 30 kB
_PATIENCE_S = 2.0
_SLOW = 3  # answers in a row
_NO_METRICS = "it is not Prometheus' text"
_UNPARSED = (ValueError, KeyError, IndexError, TypeError, AttributeError)  # whatever the parser makes of a text
_LINE = re.compile(r"#|[a-zA-Z_:][a-zA-Z0-9_:]*[ \t{]")


class Served(msgspec.Struct, frozen=True):
    """Latencies as the service measured them itself, in milliseconds: ``avg`` is exact, the percentiles are read from
    the buckets of a histogram, and lie within theirs. ``spectrum`` has pairs of percent and milliseconds. It is of
    ``count`` requests, this test's and all others'.
    """

    count: int
    avg: float
    p50: float
    p95: float
    p99: float
    spectrum: list[tuple[float, float]]


class _Counts:
    """The histogram of writes or of reads: the requests within each upper bound, and the sum of seconds."""

    def __init__(self) -> None:
        self.within: dict[float, float] = {}
        self.sum_s = 0.0

    def since(self, before: _Counts) -> Served | None:
        """The difference between the two; None when there was nothing, or the counters were reset."""
        bounds = sorted(self.within)
        differences = [self.within[bound] - before.within.get(bound, 0.0) for bound in bounds]
        if not differences or differences[-1] < 1 or min(differences) < 0 or bounds[-1] != math.inf:
            return None
        counts = list(accumulate(differences, max))  # a reading may see an observation half counted
        count = round(counts[-1])
        return Served(
            count=count,
            avg=(self.sum_s - before.sum_s) / counts[-1] * 1000,
            p50=_percentile(bounds, counts, 50),
            p95=_percentile(bounds, counts, 95),
            p99=_percentile(bounds, counts, 99),
            spectrum=[(percent, _percentile(bounds, counts, percent)) for percent in percents(count)],
        )


def _percentile(bounds: list[float], counts: list[float], percent: float) -> float:
    """In milliseconds, evenly within its bucket; the last finite bound when it is above that."""
    rank = max(percent / 100 * counts[-1], 1.0)
    place = bisect_left(counts, rank)
    low, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    if bounds[place] == math.inf:
        return low * 1000
    return (low + (bounds[place] - low) * (rank - below) / (counts[place] - below)) * 1000


class _Reading(msgspec.Struct):
    """``durations`` are the lines of the histograms, which are parsed when they are needed: they are most of them."""

    sums: dict[str, float]
    durations: list[str]


class Gauges:
    """Reads ``/metrics``. ``unusable`` says why it is not read any more, once that is so."""

    def __init__(self, url: str) -> None:
        self._client = Client(url, longest=_LONGEST)
        self._target = self._client.base.removesuffix("/api/v1") + "/metrics"
        self._cached = (0.0, 0.0)
        self._first: _Reading | None = None
        self._last: _Reading | None = None
        self._slow = 0
        self._checked = False
        self.unusable: str | None = None

    async def read(self) -> dict[str, float]:
        """What is watched, by the name it is shown with; the share of cache hits is that since the last reading.

        Nothing where the service gives no answer now, and from when ``unusable`` is set.
        """
        text = await self._text() if self.unusable is None else None
        return self._shown(text) if text is not None else {}

    def _shown(self, text: str) -> dict[str, float]:
        try:
            reading = _reading(self._lines(text))
            if self._first is None:
                _sides(reading.durations)
        except _UNPARSED:
            self.unusable = _NO_METRICS
            return {}
        self._first = self._first or reading
        self._last = reading
        sums = reading.sums
        shown = {title: sums[name] for name, title in _GAUGES.items() if name in sums}
        hits, misses = (sums.get(name, 0.0) for name in _CACHE)
        asked = hits + misses - sum(self._cached)
        if asked > 0:
            shown["cache hits, %"] = 100 * (hits - self._cached[0]) / asked
        self._cached = hits, misses
        return shown

    def served(self) -> tuple[Served | None, Served | None]:
        """Writes and reads between the first reading and the last; None if the service has no such metric."""
        if self._first is None or self._last is None:
            return None, None
        if self._first.sums.get(_STARTED) != self._last.sums.get(_STARTED):
            return None, None  # another process: its counters began at 0
        try:
            first, last = _sides(self._first.durations), _sides(self._last.durations)
        except _UNPARSED:
            self.unusable = _NO_METRICS
            return None, None
        writes, reads = (after.since(before) for before, after in zip(first, last, strict=True))
        return writes, reads

    async def _text(self) -> str | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await self._client.raw("GET", self._target)
        except asyncio.CancelledError:
            self._client.close()  # what comes on this connection would be taken for the next answer
            raise
        except TimeoutError:
            self._client.close()
            self._slow += 1
            if self._slow >= _SLOW:
                self.unusable = f"it took over {_PATIENCE_S:g} s, {_SLOW} times in a row"
            return None
        except TooLong:
            self.unusable = f"it is over {_LONGEST // 1024 // 1024} MiB"
            return None
        except CallFailed:
            if self._first is None:
                self.unusable = "it gives no answer that can be read"
            return None  # else a service that is being restarted
        self._slow = 0
        if answer.status != 200:
            if answer.status not in (429, 503):
                self.unusable = f"it answers {answer.status}"
            return None
        try:
            return answer.body.decode()
        except UnicodeDecodeError:
            self.unusable = _NO_METRICS
            return None

    def _lines(self, text: str) -> list[str]:
        """The lines of the metrics we use, since the parser is slow. Raises ValueError."""
        lines = text.splitlines()
        if not self._checked:
            if not any(lines) or not all(_LINE.match(line.lstrip()) for line in lines if line.strip()):
                raise ValueError("not a metric")
            self._checked = True
        return [line for line in lines if line.startswith(_WANTED)]

    def close(self) -> None:
        self._client.close()


def _samples(lines: list[str]) -> Iterator[Sample]:
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        yield from (sample for sample in family.samples if math.isfinite(sample.value))


def _reading(lines: list[str]) -> _Reading:
    reading = _Reading({}, [line for line in lines if line.startswith(_DURATION)])
    for sample in _samples([line for line in lines if not line.startswith(_DURATION)]):
        reading.sums[sample.name] = reading.sums.get(sample.name, 0.0) + sample.value
    return reading


def _sides(lines: list[str]) -> tuple[_Counts, _Counts]:
    """The histograms of writes and of reads."""
    sides = (_Counts(), _Counts())
    for sample in _samples(lines):
        for names, counts in zip(_SIDES, sides, strict=True):
            if sample.labels.get("route") not in names:
                continue
            if sample.name == f"{_DURATION}_sum":
                counts.sum_s += sample.value
            elif sample.name == f"{_DURATION}_bucket":
                bound = float(sample.labels["le"])
                counts.within[bound] = counts.within.get(bound, 0.0) + sample.value
    return sides
