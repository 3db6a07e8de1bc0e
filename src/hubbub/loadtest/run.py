"""A phase as it went: second by second, and as a whole, over all generators."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from hubbub.loadtest.mix import ROUTES, WRITES
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.recorder import Recorder
from hubbub.loadtest.tally import Second

SIDES = ("writes", "reads")


class SideMoment(msgspec.Struct, frozen=True):
    """One second of the writes or the reads: a rate a second, milliseconds from when requests were due."""

    rate: float
    total: int
    failed: int
    late: int
    p50: float
    p95: float
    p99: float
    max: float
    uncorrected_p99: float


class Moment(msgspec.Struct, frozen=True):
    """One second; ``waiting`` requests were due and not sent at its end. Cores and lag are the generators'."""

    second: int
    writes: SideMoment
    reads: SideMoment
    failures: dict[str, int]
    waiting: int
    cores: list[float]
    lag_ms: float


@dataclass
class Run:
    """``sides`` are the writes and the reads, ``routes`` the same by route. ``started`` is on time.monotonic()."""

    plan: Plan
    started: float
    took_s: float = 0.0
    sides: tuple[Recorder, Recorder] = field(default_factory=lambda: (Recorder(), Recorder()))
    routes: dict[str, Recorder] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    lagged: int = 0
    cpu_s: float = 0.0
    peak_bytes: int = 0

    def add(self, seconds: list[Second]) -> Moment:
        """Put the generators' reports of one second together."""
        moment = _moment(seconds)
        self.moments.append(moment)
        for second in seconds:
            self.lagged += second.lagged
            self.cpu_s += second.cpu_s
            for recorder, late in zip(self.sides, second.late, strict=True):
                recorder.late += late
            for route, answers in second.routes.items():
                self.sides[0 if route in WRITES else 1].add(answers)
                self.routes.setdefault(ROUTES[route], Recorder()).add(answers)
        return moment


def _moment(seconds: list[Second]) -> Moment:
    span_s = sum(second.span_s for second in seconds) / len(seconds)
    failures: Counter[str] = Counter()
    for second in seconds:
        for answers in second.routes.values():
            failures.update(answers.failures)
    return Moment(
        second=seconds[0].index + 1,
        writes=_side(seconds, 0, span_s),
        reads=_side(seconds, 1, span_s),
        failures=dict(failures),
        waiting=sum(second.waiting for second in seconds),
        cores=[second.cpu_s / second.span_s if second.span_s else 0.0 for second in seconds],
        lag_ms=max(second.lag_ms for second in seconds),
    )


def _side(seconds: list[Second], side: int, span_s: float) -> SideMoment:
    latencies: array[int] = array("I")
    services: array[int] = array("I")
    failed = 0
    for second in seconds:
        for route, answers in second.routes.items():
            if (0 if route in WRITES else 1) == side:
                latencies.frombytes(answers.latencies)
                services.frombytes(answers.services)
                failed += sum(answers.failures.values())
    ordered = sorted(latencies)
    total = len(ordered) + failed
    return SideMoment(
        rate=total / span_s if span_s else 0.0,
        total=total,
        failed=failed,
        late=sum(second.late[side] for second in seconds),
        p50=nearest_rank(ordered, 50),
        p95=nearest_rank(ordered, 95),
        p99=nearest_rank(ordered, 99),
        max=nearest_rank(ordered, 100),
        uncorrected_p99=nearest_rank(sorted(services), 99),
    )


def nearest_rank(ordered_us: list[int], percent: float) -> float:
    """The smallest value in milliseconds that at least ``percent`` did not exceed; 0 when there is none."""
    return ordered_us[math.ceil(percent * len(ordered_us) / 100) - 1] / 1000 if ordered_us else 0.0
