"""From figures to PASS or FAIL."""

from __future__ import annotations

from dataclasses import dataclass, field

from hubbub.loadtest.plan import Plan
from hubbub.loadtest.recorder import Latency, Recorder

PASS_THROUGHPUT = 0.5  # of the target
PASS_SUCCESS = 0.95
GOOD_MS = {"writes": (50.0, 100.0), "reads": (30.0, 80.0)}  # P95, P99


@dataclass(frozen=True)
class Side:
    """The writes' or the reads' result. ``success_rate`` is a fraction of 1, ``throughput`` requests a second."""

    target: int
    total: int
    failed: int
    success_rate: float
    throughput: float
    latency: Latency
    late: int
    unsent: int
    failures: dict[str, int]

    @property
    def passed(self) -> bool:
        return self.throughput >= PASS_THROUGHPUT * self.target and (
            self.success_rate > PASS_SUCCESS or self.target == 0
        )


@dataclass(frozen=True)
class Usage:
    """What a process took: cores in use (1.0 is one core busy all the time) and its largest memory in bytes."""

    cores: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    plan: Plan
    duration: float
    writes: Side
    reads: Side
    generator: Usage | None = None
    parts: dict[str, Usage] = field(default_factory=dict)  # of what was started for the test, by name

    @property
    def passed(self) -> bool:
        return self.writes.passed and self.reads.passed


def side(target: int, recorder: Recorder, duration: float) -> Side:
    total, failed = recorder.total, recorder.failed
    return Side(
        target=target,
        total=total,
        failed=failed,
        success_rate=(total - failed) / total if total else 0.0,
        throughput=total / duration,
        latency=recorder.latency(),
        late=recorder.late,
        unsent=recorder.unsent,
        failures=dict(recorder.failures.most_common()),
    )
