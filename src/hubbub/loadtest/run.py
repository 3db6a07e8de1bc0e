"""The course of a phase, second by second and as a whole, over all generators."""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field

import msgspec

from hubbub.loadtest.mix import ROUTES, WRITES
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.recorder import Recorder
from hubbub.loadtest.summary import SecondSummary

SIDES = ("writes", "reads")
RECENT = 60


class SideMoment(msgspec.Struct, frozen=True):
    """Figures of the writes or the reads: rates a second, and milliseconds from when requests were due."""

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
    """Up to the end of ``second``; ``waiting`` requests were due and not sent then. Cores and lag are of generators."""

    second: int
    writes: SideMoment
    reads: SideMoment
    failures: dict[str, int]
    waiting: int
    cores: list[float]
    lag_ms: float


@dataclass
class Run:
    """``sides`` are the writes and the reads, ``routes`` their parts. ``started`` is on time.monotonic().

    ``moments`` has one for each ``plan.interval`` of the run, so that there are never many, and ``recent`` the last
    minute's, second by second.
    """

    plan: Plan
    started: float
    took_s: float = 0.0
    sides: tuple[Recorder, Recorder] = field(default_factory=lambda: (Recorder(), Recorder()))
    routes: dict[str, Recorder] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    recent: deque[Moment] = field(default_factory=lambda: deque(maxlen=RECENT))
    cpu_s: float = 0.0
    peak_bytes: int = 0
    # By second, those of the moment that is not over yet.
    _pending: list[list[SecondSummary]] = field(default_factory=list)

    def add(self, seconds: list[SecondSummary]) -> Moment:
        """Put the generators' reports of one second together."""
        moment = _moment([seconds])
        self.recent.append(moment)
        self._keep(seconds, moment)
        for second in seconds:
            self.cpu_s += second.cpu_s
            for recorder, late in zip(self.sides, second.late, strict=True):
                recorder.late = [count + more for count, more in zip(recorder.late, late, strict=True)]
            for route, answers in second.routes.items():
                self._recorder(route).add(answers)
        return moment

    def _recorder(self, route: int) -> Recorder:
        name = ROUTES[route]
        if name not in self.routes:
            self.routes[name] = Recorder()
            self.sides[0 if route in WRITES else 1].parts.append(self.routes[name])
        return self.routes[name]

    def _keep(self, seconds: list[SecondSummary], moment: Moment) -> None:
        interval = self.plan.interval
        if interval == 1:
            self.moments.append(moment)
            return
        self._pending.append(seconds)
        if moment.second % interval == 0 or moment.second >= self.plan.seconds:
            self.moments.append(_moment(self._pending))
            self._pending = []


def _moment(reports: list[list[SecondSummary]]) -> Moment:
    """Of one second or of several that follow each other; each has one report of every generator."""
    seconds = [second for each in reports for second in each]
    span_s = sum(second.span_s for second in seconds) / len(reports[0])
    failures: Counter[str] = Counter()
    for second in seconds:
        for answers in second.routes.values():
            failures.update(answers.failures)
    generators = list(zip(*reports, strict=True))
    return Moment(
        second=reports[-1][0].index + 1,
        writes=_side(seconds, 0, span_s),
        reads=_side(seconds, 1, span_s),
        failures=dict(failures),
        waiting=sum(second.waiting for second in reports[-1]),
        cores=[_cores(each) for each in generators],
        lag_ms=max(second.lag_ms for second in seconds),
    )


def _cores(seconds: tuple[SecondSummary, ...]) -> float:
    span_s = sum(second.span_s for second in seconds)
    return sum(second.cpu_s for second in seconds) / span_s if span_s else 0.0


def _side(seconds: list[SecondSummary], side: int, span_s: float) -> SideMoment:
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
        late=sum(sum(second.late[side]) for second in seconds),
        p50=nearest_rank(ordered, 50),
        p95=nearest_rank(ordered, 95),
        p99=nearest_rank(ordered, 99),
        max=nearest_rank(ordered, 100),
        uncorrected_p99=nearest_rank(sorted(services), 99),
    )


def nearest_rank(ordered_us: list[int], percent: float) -> float:
    """The smallest value in milliseconds that at least ``percent`` did not exceed; 0 when there is none."""
    return ordered_us[math.ceil(percent * len(ordered_us) / 100) - 1] / 1000 if ordered_us else 0.0
