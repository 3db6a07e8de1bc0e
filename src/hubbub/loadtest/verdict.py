"""From figures to PASS or FAIL."""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub.loadtest.recorder import Latency, Recorder
from hubbub.loadtest.requirement import Check
from hubbub.loadtest.run import Moment, Run
from hubbub.loadtest.verify import Findings

PASS_THROUGHPUT = 0.5  # of the target
PASS_SUCCESS = 0.95
GOOD_MS = {"writes": (50.0, 100.0), "reads": (30.0, 80.0)}  # P95, P99

_BUSY_CORES = 0.95
_SHORT = 0.01


class Side(msgspec.Struct, frozen=True):
    """The writes' or the reads' result. ``success_rate`` is a fraction of 1, ``throughput`` requests a second.

    ``latency`` counts from when a request was due, ``uncorrected`` from when it was sent; ``spectrum`` has pairs of
    percent and milliseconds of both.
    """

    target: float
    total: int
    failed: int
    success_rate: float
    throughput: float
    latency: Latency
    uncorrected: Latency
    late: int
    unsent: int
    failures: dict[str, int]
    spectrum: list[tuple[float, float]] = []
    uncorrected_spectrum: list[tuple[float, float]] = []

    @property
    def passed(self) -> bool:
        return self.throughput >= PASS_THROUGHPUT * self.target and (
            self.success_rate > PASS_SUCCESS or self.target == 0
        )


class Usage(msgspec.Struct, frozen=True):
    """What a process took: cores in use (1.0 is one core busy all the time) and its largest memory in bytes."""

    cores: float
    peak_bytes: int


class GeneratorUse(msgspec.Struct, frozen=True):
    """What the generators took together. ``limit`` says why they and not the service bounded the run, if they did."""

    processes: int
    cores: float
    peak_bytes: int
    cpu_us_per_request: float
    lagged: int
    lag_ms: float
    limit: str | None


class Result(msgspec.Struct, frozen=True):
    """``parts`` are the service's processes, by name; ``samples`` what was seen of the service, second by second."""

    target_writes: float
    target_reads: float
    workers: int
    duration: float
    writes: Side
    reads: Side
    routes: dict[str, Side]
    moments: list[Moment]
    generator: GeneratorUse
    parts: dict[str, Usage] = {}
    samples: list[dict[str, Any]] = []
    checks: list[Check] = []
    findings: Findings | None = None

    @property
    def passed(self) -> bool:
        return (
            self.generator.limit is None
            and self.writes.passed
            and self.reads.passed
            and all(check.held for check in self.checks)
            and (self.findings is None or not self.findings.faults)
        )


def side(target: float, recorder: Recorder, duration: float) -> Side:
    total, failed = recorder.total, recorder.failed
    return Side(
        target=target,
        total=total,
        failed=failed,
        success_rate=(total - failed) / total if total else 0.0,
        throughput=total / duration,
        latency=recorder.corrected.latency(),
        uncorrected=recorder.uncorrected.latency(),
        late=recorder.late,
        unsent=recorder.unsent,
        failures=dict(recorder.failures.most_common()),
        spectrum=recorder.corrected.spectrum(),
        uncorrected_spectrum=recorder.uncorrected.spectrum(),
    )


def result(run: Run, *, parts: dict[str, Usage], samples: list[dict[str, Any]], checks: list[Check]) -> Result:
    """The result of a phase."""
    target_writes, target_reads = run.plan.targets
    return Result(
        target_writes=target_writes,
        target_reads=target_reads,
        workers=run.plan.workers,
        duration=run.took_s,
        writes=side(target_writes, run.sides[0], run.took_s),
        reads=side(target_reads, run.sides[1], run.took_s),
        routes={name: side(0, recorder, run.took_s) for name, recorder in sorted(run.routes.items())},
        moments=run.moments,
        generator=_generator(run),
        parts=parts,
        samples=samples,
        checks=checks,
    )


def _generator(run: Run) -> GeneratorUse:
    total = sum(recorder.total for recorder in run.sides)
    return GeneratorUse(
        processes=max(len(moment.cores) for moment in run.moments),
        cores=run.cpu_s / run.took_s,
        peak_bytes=run.peak_bytes,
        cpu_us_per_request=run.cpu_s / total * 1e6 if total else 0.0,
        lagged=run.lagged,
        lag_ms=max(moment.lag_ms for moment in run.moments),
        limit=_limit(run),
    )


def _limit(run: Run) -> str | None:
    """Why the generators could not send what was due, if it was their own doing."""
    due = sum(run.plan.targets) * run.plan.seconds
    if run.lagged > _SHORT * due:
        return f"{run.lagged} requests were over 100 ms late because it came to them late itself"
    cpus = [cores for moment in run.moments for cores in moment.cores]
    busy = sum(cores >= _BUSY_CORES for cores in cpus)
    short = sum(recorder.late + recorder.unsent for recorder in run.sides)
    if busy * 2 > len(cpus) and short > _SHORT * due:
        return f"it used a whole core in {busy} of {len(cpus)} seconds and fell behind; give it more --processes"
    return None
