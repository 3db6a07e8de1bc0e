"""The result in words and as JSON."""

from __future__ import annotations

from typing import Any

from hubbub.loadtest.recorder import Latency
from hubbub.loadtest.verdict import GOOD_MS, Result, Side, Usage

RULE = "=" * 43


def heading(title: str) -> str:
    return f"{RULE}\n  {title}\n{RULE}"


def _mark(passed: bool) -> str:
    return "✓ PASS" if passed else "✗ FAIL"


def progress(seconds: float, writes: int, reads: int, recent_writes: float, recent_reads: float) -> str:
    """One progress line: totals so far, and rates since the line before."""
    return f"[{seconds:.0f}s] Writes: {writes} ({recent_writes:.0f}/s) | Reads: {reads} ({recent_reads:.0f}/s)"


def report(result: Result) -> str:
    """The final report, as the contract has it; what it lacks there comes in lines of its own."""
    lines = [heading("Test Results"), f"Duration:       {result.duration:.2f} seconds", ""]
    lines += _side("writes", result.writes)
    lines += [""]
    lines += _side("reads", result.reads)
    lines += [""]
    lines += _usage(result)
    lines += [RULE, f"  Overall: {_mark(result.passed)}", RULE]
    return "\n".join(lines)


def _side(name: str, side: Side) -> list[str]:
    latency = side.latency
    lines = [
        f"{name.capitalize()}:",
        f"  Total:        {side.total}",
        f"  Failed:       {side.failed}",
        f"  Success Rate: {side.success_rate * 100:.2f}%",
        f"  Throughput:   {side.throughput:.2f} {name}/sec",
        f"  Target:       {side.target} {name}/sec {_mark(side.passed)}",
        "  Latency:",
        f"    Avg: {latency.avg:.1f}ms",
        f"    P50: {latency.p50:.1f}ms",
        f"    P95: {latency.p95:.1f}ms",
        f"    P99: {latency.p99:.1f}ms",
        f"    Max: {latency.max:.1f}ms",
        f"    Good: {_good(name, latency)}",
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


def _usage(result: Result) -> list[str]:
    usages = result.parts | ({"Generator": result.generator} if result.generator else {})
    lines = [
        f"{name + ':':<15} {usage.cores:.2f} cores, peak memory {usage.peak_bytes / 1e6:.0f} MB"
        for name, usage in usages.items()
    ]
    return [*lines, ""] if lines else []


def as_json(result: Result) -> dict[str, Any]:
    """The result as the contract's section 4 has it; rates are fractions of 1."""
    return {
        "duration_s": result.duration,
        "target": {"writes": result.plan.writes, "reads": result.plan.reads},
        "workers": result.plan.workers,
        "writes": _side_json(result.writes),
        "reads": _side_json(result.reads),
        "parts": {name: _usage_json(usage) for name, usage in result.parts.items()},
        "generator": _usage_json(result.generator) if result.generator else None,
        "pass": result.passed,
    }


def _side_json(side: Side) -> dict[str, Any]:
    latency = side.latency
    return {
        "total": side.total,
        "failed": side.failed,
        "success_rate": side.success_rate,
        "throughput": side.throughput,
        "pass": side.passed,
        "latency_ms": {
            "avg": latency.avg,
            "p50": latency.p50,
            "p95": latency.p95,
            "p99": latency.p99,
            "max": latency.max,
        },
        "late": side.late,
        "unsent": side.unsent,
        "failures": side.failures,
    }


def _usage_json(usage: Usage) -> dict[str, float]:
    return {"cores": usage.cores, "peak_bytes": usage.peak_bytes}
