"""Decides PASS or FAIL from the figures of a run."""

from __future__ import annotations

from math import floor
from typing import Any, Literal

import msgspec

from hubbub.loadtest.gauges import Served
from hubbub.loadtest.recorder import Latency, Recorder
from hubbub.loadtest.requirement import Check
from hubbub.loadtest.run import Moment, Run
from hubbub.loadtest.summary import GENERATOR, REASONS
from hubbub.loadtest.verify import Findings

PASS_THROUGHPUT = 0.5  # of the target
PASS_SUCCESS = 0.95
GOOD_MS = {"writes": (50.0, 100.0), "reads": (30.0, 80.0)}  # P95, P99

_BUSY_CORES = 0.95
_SHORT = 0.01
_SAME = 0.05  # of the requests


class Side(msgspec.Struct, frozen=True):
    """The writes' or the reads' result. ``success_rate`` is a fraction of 1, ``throughput`` requests a second.

    ``latency`` counts from when a request was due, ``uncorrected`` from when it was sent; ``spectrum`` has pairs of
    percent and milliseconds of both. ``late_by`` splits ``late`` by reason. ``served`` is what the service measured
    itself, where it says so.
    """

    target: float
    total: int
    failed: int
    success_rate: float
    throughput: float
    latency: Latency
    uncorrected: Latency
    late: int
    late_by: dict[str, int]
    unsent: int
    failures: dict[str, int]
    spectrum: list[tuple[float, float]] = []
    uncorrected_spectrum: list[tuple[float, float]] = []
    served: Served | None = None

    @property
    def held(self) -> float:
        """The share of the target that was reached, 1 at most."""
        return min(self.throughput / self.target, 1.0) if self.target else 1.0

    @property
    def gap(self) -> float | None:
        """By how many milliseconds the average from sent is above the service's own: what the kernel, the network and
        the generator take. None where the service does not say, or counted others' requests or not all of these.
        """
        if self.served is None or abs(self.served.count - self.total) > _SAME * self.total:
            return None
        return self.uncorrected.avg - self.served.avg

    @property
    def succeeded(self) -> bool:
        return self.success_rate > PASS_SUCCESS or self.target == 0

    @property
    def passed(self) -> bool:
        return self.throughput >= PASS_THROUGHPUT * self.target and self.succeeded


class Usage(msgspec.Struct, frozen=True):
    """What a process took: cores in use (1.0 is one core busy all the time) and its largest memory in bytes."""

    cores: float
    peak_bytes: int


class GeneratorUse(msgspec.Struct, frozen=True):
    """What the generators took together. ``lagged`` requests were late by their doing. ``limit`` says why they and not
    the service bounded the run, if they did.
    """

    processes: int
    cores: float
    peak_bytes: int
    cpu_us_per_request: float
    lagged: int
    lag_ms: float
    limit: str | None


class Result(msgspec.Struct, frozen=True):
    """``moments`` and ``samples`` are how the run went and what was seen of the service, every ``interval`` seconds;
    ``parts`` are the service's processes, by name.
    """

    target_writes: float
    target_reads: float
    workers: int
    interval: int
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
    metrics_unusable: str | None = None

    @property
    def sides(self) -> tuple[tuple[str, Side], tuple[str, Side]]:
        return ("writes", self.writes), ("reads", self.reads)

    @property
    def passed(self) -> bool:
        return (
            self.generator.limit is None
            and self.writes.passed
            and self.reads.passed
            and all(check.held for check in self.checks)
            and (self.findings is None or not self.findings.faults)
        )


class Verdict(msgspec.Struct, frozen=True):
    """``result`` is "none" where the generator was the limit. ``held`` is the smallest share of a target that was
    reached and ``needed`` what PASS needs; ``missed`` names the latency goals that were missed, as ``writes.p95<50ms``.
    ``text`` is all of it in one line.
    """

    result: Literal["pass", "fail", "none"]
    held: float
    needed: float
    latency_goals: Literal["kept", "missed"]
    missed: list[str]
    text: str


def rule() -> str:
    """The rule of the verdict, in one line."""
    goals = "; ".join(f"{name} P95 < {p95:g} ms, P99 < {p99:g} ms" for name, (p95, p99) in GOOD_MS.items())
    return (
        f"PASS needs {PASS_THROUGHPUT:.0%} of each target and over {PASS_SUCCESS:.0%} success. "
        f"Latency goals, shown beside it: {goals}."
    ).replace("%", " %")


def missed_goals(result: Result) -> list[str]:
    """The latency goals that a run missed, of the kinds of requests that it had."""
    return [
        f"{name}.{percentile}<{bound:g}ms"
        for name, side in result.sides
        if side.total or side.target
        for percentile, bound in zip(("p95", "p99"), GOOD_MS[name], strict=True)
        if not side.total - side.failed or getattr(side.latency, percentile) >= bound
    ]


def verdict(results: list[Result]) -> Verdict:
    """The verdict of all runs, which is that of the worst."""
    verdicts = [_of_run(each) for each in results]
    worst = min(verdicts, key=lambda each: (each.result == "pass", each.latency_goals == "kept", each.held))
    if len(verdicts) == 1:
        return worst
    passed = sum(each.result == "pass" for each in verdicts)
    return msgspec.structs.replace(worst, text=f"{passed} of {len(verdicts)} runs passed; the worst: {worst.text}")


def _of_run(result: Result) -> Verdict:
    held = min(side.held for _, side in result.sides)
    missed = missed_goals(result)
    parts = [f"held {_percent(held)}, needs {_percent(PASS_THROUGHPUT)}"]
    parts += [
        f"{name} success {_percent(side.success_rate)}, needs over {_percent(PASS_SUCCESS)}"
        for name, side in result.sides
        if not side.succeeded
    ]
    broken = sum(not check.held for check in result.checks)
    if broken:
        parts.append(f"{broken} of {len(result.checks)} requirements missed")
    if result.findings is not None and result.findings.faults:
        parts.append(f"{result.findings.faults} faults in what was read back")
    if result.generator.limit is not None:
        outcome: Literal["pass", "fail", "none"] = "none"
        word = "NO VERDICT"
        parts.insert(0, "the load generator was the limit")
    else:
        outcome = "pass" if result.passed else "fail"
        word = outcome.upper()
    return Verdict(
        result=outcome,
        held=held,
        needed=PASS_THROUGHPUT,
        latency_goals="missed" if missed else "kept",
        missed=missed,
        text=f"{word} ({'; '.join(parts)}); latency goals {'missed' if missed else 'kept'}",
    )


def _percent(share: float) -> str:
    """Percent, rounded down, so that a missed target never looks reached."""
    return f"{floor(share * 1000 + 1e-9) / 10:g} %"


def side(target: float, recorder: Recorder, duration: float, served: Served | None = None) -> Side:
    total, failed = recorder.total, recorder.failed
    return Side(
        target=target,
        total=total,
        failed=failed,
        success_rate=(total - failed) / total if total else 0.0,
        throughput=total / duration,
        latency=recorder.corrected.latency(),
        uncorrected=recorder.uncorrected.latency(),
        late=sum(recorder.late),
        late_by=dict(zip(REASONS, recorder.late, strict=True)),
        unsent=recorder.unsent,
        failures=dict(recorder.failures.most_common()),
        spectrum=recorder.corrected.spectrum(),
        uncorrected_spectrum=recorder.uncorrected.spectrum(),
        served=served,
    )


def result(
    run: Run,
    *,
    parts: dict[str, Usage],
    samples: list[dict[str, Any]],
    checks: list[Check],
    served: tuple[Served | None, Served | None] = (None, None),
    metrics_unusable: str | None = None,
) -> Result:
    """The result of a phase."""
    target_writes, target_reads = run.plan.targets
    return Result(
        target_writes=target_writes,
        target_reads=target_reads,
        workers=run.plan.workers,
        interval=run.plan.interval,
        duration=run.took_s,
        writes=side(target_writes, run.sides[0], run.took_s, served[0]),
        reads=side(target_reads, run.sides[1], run.took_s, served[1]),
        routes={name: side(0, recorder, run.took_s) for name, recorder in sorted(run.routes.items())},
        moments=run.moments,
        generator=_generator(run),
        parts=parts,
        samples=samples,
        checks=checks,
        metrics_unusable=metrics_unusable,
    )


def _generator(run: Run) -> GeneratorUse:
    total = sum(recorder.total for recorder in run.sides)
    return GeneratorUse(
        processes=max(len(moment.cores) for moment in run.moments),
        cores=run.cpu_s / run.took_s,
        peak_bytes=run.peak_bytes,
        cpu_us_per_request=run.cpu_s / total * 1e6 if total else 0.0,
        lagged=_lagged(run),
        lag_ms=max(moment.lag_ms for moment in run.moments),
        limit=_limit(run),
    )


def _lagged(run: Run) -> int:
    return sum(recorder.late[GENERATOR] for recorder in run.sides)


def _limit(run: Run) -> str | None:
    """Why the generators could not send what was due, if it was their own doing."""
    due = sum(run.plan.targets) * run.plan.seconds
    if (lagged := _lagged(run)) > _SHORT * due:
        return f"{lagged} requests were over 100 ms late because the generator itself was late"
    cpus = [cores for moment in run.moments for cores in moment.cores]
    busy = sum(cores >= _BUSY_CORES for cores in cpus)
    short = sum(sum(recorder.late) + recorder.unsent for recorder in run.sides)
    if busy * 2 > len(cpus) and short > _SHORT * due:
        return f"it used a whole core in {busy} of {len(cpus)} seconds and fell behind; give it more --processes"
    return None
