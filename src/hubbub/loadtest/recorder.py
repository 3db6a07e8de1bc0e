"""Records all requests: every latency in an HdrHistogram, every failure by its kind."""

from __future__ import annotations

import math
from array import array
from collections import Counter

import msgspec
from hdrh.histogram import HdrHistogram

from hubbub.loadtest.summary import REASONS, Answers

LONGEST_US = 60_000_000
DIGITS = 3
_BITS = 11  # of a latency, the first of which it takes to keep so many digits
# Where the percentile spectrum is read: from the median on, each step halves what is left above.
_STEPS_A_HALVING = 4
_HALVINGS = 20
_GATHERED = 50_000


class Latency(msgspec.Struct, frozen=True):
    """Latencies in milliseconds."""

    avg: float
    p50: float
    p95: float
    p99: float
    max: float


class Histogram:
    """Latencies in microseconds, kept to three digits, 1 µs to 60 s; average and maximum are exact.

    Histograms of several generators are merged exactly.
    """

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        self._gathered: Counter[int] = Counter()  # on its way into the histogram: equal ones cost one step there
        self._sum_us = 0
        self._max_us = 0
        self.count = 0

    def add(self, latencies_us: array[int] | list[int]) -> None:
        if not latencies_us:
            return
        self.count += len(latencies_us)
        self._sum_us += sum(latencies_us)
        self._max_us = max(self._max_us, *latencies_us, 0)
        self._gathered.update(latencies_us)
        if len(self._gathered) > _GATHERED:
            self._fold()

    def _fold(self) -> None:
        buckets: Counter[int] = Counter()  # recording is slow, so it is done once for each
        for latency_us, count in self._gathered.items():
            buckets[_bucket(latency_us)] += count
        for latency_us, count in buckets.items():
            self._histogram.record_value(min(max(latency_us, 1), LONGEST_US), count)
        self._gathered.clear()

    def merge(self, other: Histogram) -> None:
        """Add what the other has, which is not changed by it."""
        other._fold()
        self._histogram.add(other._histogram)
        self._sum_us += other._sum_us
        self._max_us = max(self._max_us, other._max_us)
        self.count += other.count

    def latency(self) -> Latency:
        if not self.count:
            return Latency(0, 0, 0, 0, 0)
        return Latency(
            avg=self._sum_us / self.count / 1000,
            p50=self.percentile(50),
            p95=self.percentile(95),
            p99=self.percentile(99),
            max=self._max_us / 1000,
        )

    def percentile(self, percent: float) -> float:
        """The latency in milliseconds that ``percent`` of the requests did not exceed."""
        self._fold()
        # The library rounds the rank to the nearest; asked for a whole rank it has nothing to round, and the answer
        # is the nearest-rank percentile (the smallest value that at least this share did not exceed).
        rank = math.ceil(percent * self.count / 100)
        if not self.count:
            return 0.0
        value_us = self._histogram.get_value_at_percentile(100 * rank / self.count)
        return float(min(value_us, self._max_us)) / 1000  # a bucket's upper end may lie above all that was in it

    def spectrum(self) -> list[tuple[float, float]]:
        """Pairs of percent and milliseconds, from 0 % towards 100 %, the steps ever finer, as far as the count goes."""
        return [(percent, self.percentile(percent)) for percent in percents(self.count)]


def _bucket(latency_us: int) -> int:
    """The lowest latency that the histogram counts together with this one."""
    shift = max(latency_us.bit_length() - _BITS, 0)
    return latency_us >> shift << shift


def percents(count: int) -> list[float]:
    """Where a spectrum of so many requests is read."""
    steps = range(_HALVINGS * _STEPS_A_HALVING + 1)
    every = [100 * (1 - 2 ** (-step / _STEPS_A_HALVING)) for step in steps]
    return [percent for percent in every if (1 - percent / 100) * count >= 1]


class Recorder:
    """Requests of one kind: their latencies from when each was due (``corrected``) and from when it was sent. ``late``
    are counts by reason. What its ``parts`` have recorded belongs to it, but for ``late`` and ``unsent``.
    """

    def __init__(self) -> None:
        self.late = [0] * len(REASONS)
        self.unsent = 0
        self.parts: list[Recorder] = []
        self._failures: Counter[str] = Counter()
        self._corrected = Histogram()
        self._uncorrected = Histogram()

    @property
    def failures(self) -> Counter[str]:
        return sum((part.failures for part in self.parts), self._failures)

    @property
    def corrected(self) -> Histogram:
        return _merged(self._corrected, [part.corrected for part in self.parts])

    @property
    def uncorrected(self) -> Histogram:
        return _merged(self._uncorrected, [part.uncorrected for part in self.parts])

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def total(self) -> int:
        return self._corrected.count + self._failures.total() + sum(part.total for part in self.parts)

    def add(self, answers: Answers) -> None:
        self._corrected.add(array("I", answers.latencies))
        self._uncorrected.add(array("I", answers.services))
        self._failures.update(answers.failures)


def _merged(own: Histogram, others: list[Histogram]) -> Histogram:
    if not others:
        return own
    merged = Histogram()
    for each in (own, *others):
        merged.merge(each)
    return merged
