"""What happened, request by request: every latency in an HdrHistogram, every failure by its kind."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

LONGEST_US = 60_000_000
DIGITS = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds."""

    avg: float
    p50: float
    p95: float
    p99: float
    max: float


_GATHERED = 4096


class Recorder:
    """One kind of request (writes or reads). Latencies are in microseconds, kept to three digits, 1 µs to 60 s.

    A latency costs a list append when it is recorded; ``_gathered`` goes into the histogram some thousands at a time,
    equal ones together.
    """

    def __init__(self) -> None:
        self.total = 0
        self.late = 0
        self.unsent = 0
        self.failures: Counter[str] = Counter()
        self._histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        self._gathered: list[int] = []
        self._sum_us = 0
        self._max_us = 0

    @property
    def failed(self) -> int:
        return self.failures.total()

    def record(self, latency_us: int) -> None:
        """A request that was answered as it should be."""
        self.total += 1
        self._gathered.append(latency_us)
        if len(self._gathered) == _GATHERED:
            self._fold()

    def _fold(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._sum_us += sum(gathered)
        self._max_us = max(self._max_us, *gathered, 0)
        for latency_us, count in Counter(gathered).items():
            self._histogram.record_value(min(max(latency_us, 1), LONGEST_US), count)

    def fail(self, kind: str) -> None:
        """A request that was not."""
        self.total += 1
        self.failures[kind] += 1

    def latency(self) -> Latency:
        """Of the requests that succeeded. Average and maximum are exact, percentiles to three digits."""
        self._fold()
        answered = self.total - self.failed
        if not answered:
            return Latency(0, 0, 0, 0, 0)
        return Latency(
            avg=self._sum_us / answered / 1000,
            p50=self.percentile(50),
            p95=self.percentile(95),
            p99=self.percentile(99),
            max=self._max_us / 1000,
        )

    def percentile(self, percent: float) -> float:
        """The latency in milliseconds that ``percent`` of the successful requests did not exceed."""
        self._fold()
        count = self._histogram.get_total_count()
        # The library rounds the rank to the nearest; asked for a whole rank it has nothing to round, and the answer
        # is the nearest-rank percentile (the smallest value that at least this share did not exceed).
        rank = math.ceil(percent * count / 100)
        return float(self._histogram.get_value_at_percentile(100 * rank / count)) / 1000 if count else 0.0
