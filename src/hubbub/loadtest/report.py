"""The result in words and as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub.loadtest.about import About
from hubbub.loadtest.gauges import Served
from hubbub.loadtest.mix import DEFAULT_MIX
from hubbub.loadtest.recorder import Latency
from hubbub.loadtest.run import Moment
from hubbub.loadtest.summary import REASONS
from hubbub.loadtest.verdict import GOOD_MS, Result, Side, verdict
from hubbub.loadtest.verify import Findings

RULE = "=" * 43
LIMITED = "✗ NO VERDICT"
LATE_WORDS = {
    "connection": "with no free connection (try more --workers)",
    "generator": "because of the generator's own CPU",
    "server": "because of the server",
}


def heading(title: str) -> str:
    return f"{RULE}\n  {title}\n{RULE}"


def mark(passed: bool) -> str:
    return "✓ PASS" if passed else "✗ FAIL"


def progress(seconds: float, writes: int, reads: int, recent_writes: float, recent_reads: float) -> str:
    """One progress line: totals so far, and rates since the line before."""
    return f"[{seconds:.0f}s] Writes: {writes} ({recent_writes:.0f}/s) | Reads: {reads} ({recent_reads:.0f}/s)"


def behind(recent: list[Moment]) -> str | None:
    """What was late in the seconds since the last progress line; None when nothing was."""
    late = sum(moment.writes.late + moment.reads.late for moment in recent)
    waiting = recent[-1].waiting if recent else 0
    if not late and not waiting:
        return None
    return f"     sent late: {late / len(recent):.0f}/s, due and not yet sent: {waiting}"


def report(result: Result) -> str:
    """The final report, as the contract has it; what it lacks there comes in lines of its own."""
    limited = result.generator.limit is not None
    lines = [heading("Test Results"), f"Duration:       {result.duration:.2f} seconds", ""]
    lines += _side("writes", result.writes, limited)
    lines += [""]
    lines += _side("reads", result.reads, limited)
    lines += [""]
    if set(result.routes) - set(DEFAULT_MIX):
        lines += _routes(result.routes)
    lines += _usage(result)
    lines += _checks(result)
    if result.findings is not None:
        lines += _findings(result.findings)
    if result.generator.limit is not None:
        lines += [f"The load generator was the limit, not the service: {result.generator.limit}.", ""]
    lines += [RULE, f"  Overall: {LIMITED if limited else mark(result.passed)}", RULE]
    return "\n".join(lines)


def notes(result: Result) -> list[str]:
    """What follows the report: late requests by reason, the service's own latencies, and what was not looked at."""
    lines = []
    late = sum(side.late for _, side in result.sides)
    if late:
        by = {reason: sum(side.late_by[reason] for _, side in result.sides) for reason in REASONS}
        shown = ", ".join(f"{by[reason]} {words}" for reason, words in LATE_WORDS.items())
        lines.append(f"Sent late: {late}, of them {shown}.")
    for name, side in result.sides:
        if side.served is not None:
            lines.append(f"{name.capitalize()} as the service measured them: {_served(side, side.served)}.")
    if result.metrics_unusable is not None:
        lines.append(without_metrics(result.metrics_unusable))
    return lines


def without_metrics(why: str) -> str:
    return f"Measured without the service's /metrics: {why}."


def _served(side: Side, served: Served) -> str:
    """The service's own latency beside the client's, and the difference of the averages, which are exact."""
    shown = f"Avg {served.avg:.1f}ms, P50 {served.p50:.1f}ms, P99 {served.p99:.1f}ms"
    gap = side.gap
    if gap is None:
        return f"{shown} of {served.count}, where the test had {side.total}: too far apart to name a gap"
    waited = side.latency.avg - side.uncorrected.avg
    return f"{shown}; the gap to the client's Avg is {gap:.1f}ms from sent, and {waited:.1f}ms more from due"


def _side(name: str, side: Side, limited: bool) -> list[str]:
    latency, sent = side.latency, side.uncorrected
    lines = [
        f"{name.capitalize()}:",
        f"  Total:        {side.total}",
        f"  Failed:       {side.failed}",
        f"  Success Rate: {side.success_rate * 100:.2f}%",
        f"  Throughput:   {side.throughput:.2f} {name}/sec",
        f"  Target:       {side.target:g} {name}/sec {LIMITED if limited and side.passed else mark(side.passed)}",
        "  Latency:",
        f"    Avg: {latency.avg:.1f}ms",
        f"    P50: {latency.p50:.1f}ms",
        f"    P95: {latency.p95:.1f}ms",
        f"    P99: {latency.p99:.1f}ms",
        f"    Max: {latency.max:.1f}ms",
        f"    Good: {_good(name, latency)}",
        f"    Uncorrected: P50 {sent.p50:.1f}ms, P99 {sent.p99:.1f}ms, Max {sent.max:.1f}ms (from sent, not from due)",
    ]
    if side.late:
        lines.append(f"  Late:         {side.late} sent over 100 ms after they were due")
    if side.unsent:
        lines.append(f"  Unsent:       {side.unsent} due in time and never sent")
    lines += [f"  Failed with {kind}: {count}" for kind, count in side.failures.items()]
    return lines


def _good(name: str, latency: Latency) -> str:
    p95, p99 = GOOD_MS[name]
    marks = (latency.p95 < p95, latency.p99 < p99)
    return ", ".join(
        f"{'✓' if good else '✗'} P{percent} < {bound:.0f}ms"
        for percent, bound, good in ((95, p95, marks[0]), (99, p99, marks[1]))
    )


def _routes(routes: dict[str, Side]) -> list[str]:
    lines = [f"{'Route':<10}{'Total':>10}{'Failed':>9}{'/sec':>11}{'P50':>10}{'P99':>10}{'Max':>10}"]
    for name, side in routes.items():
        times = "".join(f"{value:>8.1f}ms" for value in (side.latency.p50, side.latency.p99, side.latency.max))
        lines.append(f"{name:<10}{side.total:>10}{side.failed:>9}{side.throughput:>11.2f}{times}")
    return [*lines, ""]


def _usage(result: Result) -> list[str]:
    generator = result.generator
    usages = {name: (usage.cores, usage.peak_bytes) for name, usage in result.parts.items()}
    usages["Generator"] = (generator.cores, generator.peak_bytes)
    lines = [
        f"{name + ':':<15} {cores:.2f} cores, peak memory {size / 1e6:.0f} MB" for name, (cores, size) in usages.items()
    ]
    processes = f"{generator.processes} process{'es' if generator.processes > 1 else ''}"
    lines[-1] += f", {generator.cpu_us_per_request:.1f} µs of CPU a request, {processes}"
    highest: dict[str, float] = {}
    for sample in result.samples:
        for name, value in sample["metrics"].items():
            highest[name] = max(highest.get(name, value), value)
    if highest:
        lines.append("Highest seen:   " + ", ".join(f"{name} {value:.3g}" for name, value in highest.items()))
    return [*lines, ""]


def _checks(result: Result) -> list[str]:
    if not result.checks:
        return []
    lines = ["Required:"]
    lines += [
        f"  {'✓' if check.held else '✗'} {check.requirement} (measured {check.measured})" for check in result.checks
    ]
    return [*lines, ""]


def _findings(findings: Findings) -> list[str]:
    lines = [
        "Verified:",
        f"  Acknowledged: {findings.acknowledged} messages that should be there"
        + (f"; one of {findings.every} was noted" if findings.every > 1 else ""),
        f"  Stored:       {findings.stored} {'✓' if not findings.faults else '✗'}",
        f"  Lost: {findings.lost}, repeated: {findings.repeated}, out of order: {findings.disordered}, "
        f"altered: {findings.altered}, not deleted: {findings.undeleted}, seen by strangers: {findings.intrusions}",
    ]
    if findings.unanswered:
        lines.append(f"  Stored without an answer to the client: {findings.unanswered}")
    lines += [f"  ✗ {example}" for example in findings.examples]
    return [*lines, ""]


def as_json(result: Result, settings: dict[str, Any], measured: About | None = None) -> dict[str, Any]:
    """The result as the contract's section 4 has it; rates are fractions of 1."""
    return {
        **(msgspec.to_builtins(measured) if measured else {}),
        "verdict": msgspec.to_builtins(verdict([result])),
        "duration_s": result.duration,
        "target": {"writes": result.target_writes, "reads": result.target_reads},
        "workers": result.workers,
        "writes": _side_json(result.writes),
        "reads": _side_json(result.reads),
        "routes": {name: _side_json(side) for name, side in result.routes.items()},
        "parts": msgspec.to_builtins(result.parts),
        "generator": msgspec.to_builtins(result.generator),
        "requirements": msgspec.to_builtins(result.checks),
        "verified": msgspec.to_builtins(result.findings) if result.findings else None,
        "settings": settings,
        "interval_s": result.interval,
        "seconds": msgspec.to_builtins(result.moments),
        "service": result.samples,
        "metrics_unusable": result.metrics_unusable,
        "pass": result.passed,
    }


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "total": side.total,
        "failed": side.failed,
        "success_rate": side.success_rate,
        "throughput": side.throughput,
        "pass": side.passed,
        "latency_ms": msgspec.to_builtins(side.latency),
        "uncorrected_ms": msgspec.to_builtins(side.uncorrected),
        "served_ms": msgspec.to_builtins(side.served),
        "gap_ms": side.gap,
        "late": side.late,
        "late_by": side.late_by,
        "unsent": side.unsent,
        "failures": side.failures,
        "spectrum": side.spectrum,
        "uncorrected_spectrum": side.uncorrected_spectrum,
    }
