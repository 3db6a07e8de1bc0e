"""Whether one result is worse than another, with the noise taken into account.

For each figure the shift from A to B is estimated as the median of all differences between a value of B and one of A
(Hodges and Lehmann, 1963), of logarithms, so that it is a ratio; the confidence interval comes from the ranks of those
differences (Moses, 1965: the distribution of the Mann-Whitney statistic). Neither assumes a shape of the noise. A is
no better and no worse than B where the interval leaves that open.

What is shown of A and of B are the figures of their reports, in the reports' digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from math import ceil, exp, log, sqrt
from pathlib import Path
from statistics import NormalDist, median, median_low
from typing import Any

import msgspec

_CONFIDENCE = 0.95
_FEW_RUNS = 3
_EXACT = 400  # products of the counts up to which the distribution is counted out
_SUCCESS = 0.001
_SIDES = ("writes", "reads")
_LATENCIES = ("p50", "p95", "p99")


class Incomparable(Exception):
    """The files are no results, or of runs that asked for different things; the text says which."""


class Measured(msgspec.Struct, frozen=True):
    """``reports`` has what each file reports, and ``runs`` every run of all files."""

    reports: list[dict[str, Any]]
    runs: list[dict[str, Any]]


class Figure(msgspec.Struct, frozen=True):
    """``a`` and ``b`` are the reports', of several files the one in the middle. ``ratio`` is that of all runs of B to
    all of A, between ``low`` and ``high`` with ``confidence``; ``worse`` and ``better`` are of B.
    """

    name: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    confidence: float
    worse: bool
    better: bool


class Comparison(msgspec.Struct, frozen=True):
    """``between_runs`` is whether the noise is that between runs, or only that between the seconds of single ones."""

    figures: list[Figure]
    between_runs: bool
    runs: tuple[int, int]

    @property
    def worse(self) -> bool:
        return any(figure.worse for figure in self.figures)


def read(path: Path) -> Measured:
    """A result file, or all ``*.json`` of a folder. Raises Incomparable."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise Incomparable(f"{path} has no *.json")
    reports, runs = [], []
    for file in files:
        try:
            content = json.loads(file.read_text())
            target, seconds = content["target"], content["seconds"]
            reports.append({side: content[side] for side in _SIDES})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Incomparable(f"{file} is no result of hubbub perftest --json") from error
        for run in content.get("runs") or [content]:
            runs.append(run | {"target": target, "seconds": run.get("seconds", seconds), "load": _load(content)})
    return Measured(reports, runs)


def _load(content: dict[str, Any]) -> dict[str, Any]:
    settings = content.get("settings", {})
    names = ("mix", "message_size", "chats", "members", "zipf", "stages")
    return {"target": content["target"], "workers": content["workers"]} | {name: settings.get(name) for name in names}


def compare(a: Measured, b: Measured, tolerance: float) -> Comparison:
    """``tolerance`` is the share by which a figure may differ before it counts. Raises Incomparable."""
    loads = [run["load"] for run in (*a.runs, *b.runs)]
    for load in loads[1:]:
        for name, value in load.items():
            if value != loads[0][name]:
                raise Incomparable(f"the runs asked for different loads: {name} is {loads[0][name]} and {value}")
    between_runs = min(len(a.runs), len(b.runs)) >= _FEW_RUNS
    figures = []
    for side in _SIDES:
        if not loads[0]["target"][side]:
            continue
        for name in ("throughput", *_LATENCIES):
            of_a, of_b = (list(_values(each.runs, side, name, between_runs)) for each in (a, b))
            if of_a and of_b:
                shown = (_shown(a, side, name), _shown(b, side, name))
                figures.append(_figure(f"{side}.{name}", shown, of_a, of_b, tolerance))
        figures.append(_success(side, a, b))
    return Comparison(figures, between_runs, (len(a.runs), len(b.runs)))


def _shown(measured: Measured, side: str, name: str) -> float:
    return median_low(_reported(report, side, name) for report in measured.reports)


def _reported(run: dict[str, Any], side: str, name: str) -> float:
    return float(run[side]["latency_ms"][name] if name in _LATENCIES else run[side][name])


def _values(runs: list[dict[str, Any]], side: str, name: str, between_runs: bool) -> Iterable[float]:
    """Of whole runs, or of their seconds; what is 0 has no logarithm and no latency."""
    for run in runs:
        if between_runs:
            values = [_reported(run, side, name)]
        else:
            values = [second[side]["rate" if name == "throughput" else name] for second in run["seconds"]]
        yield from (value for value in values if value > 0)


def _success(side: str, a: Measured, b: Measured) -> Figure:
    """Failures are no noise: over a thousandth more of them is worse."""
    of_a, of_b = (median(run[side]["success_rate"] for run in each.runs) for each in (a, b))
    ratio = of_b / of_a if of_a else 1.0
    return Figure(
        name=f"{side}.success",
        a=_shown(a, side, "success_rate"),
        b=_shown(b, side, "success_rate"),
        ratio=ratio,
        low=ratio,
        high=ratio,
        confidence=1.0,
        worse=of_b < of_a - _SUCCESS,
        better=of_b > of_a + _SUCCESS,
    )


def _figure(name: str, shown: tuple[float, float], a: list[float], b: list[float], tolerance: float) -> Figure:
    ratio, low, high, confidence = shift(a, b)
    up, down = low > 1 + tolerance, high < 1 / (1 + tolerance)
    worse, better = (down, up) if name.endswith("throughput") else (up, down)
    return Figure(name, *shown, ratio, low, high, confidence, worse, better)


def shift(a: list[float], b: list[float]) -> tuple[float, float, float, float]:
    """The ratio of b to a, the bounds of its interval, and the confidence in them: the narrowest of 95 % and more, or
    all that the values allow (three against three give 90 %).
    """
    differences = sorted(log(y) - log(x) for x in a for y in b)
    cut, confidence = _cut(len(a), len(b))
    return exp(median(differences)), exp(differences[cut]), exp(differences[-1 - cut]), confidence


def _cut(m: int, n: int) -> tuple[int, float]:
    """How many differences to leave out at each end, and the confidence of what is between."""
    if m * n > _EXACT:
        deviation = sqrt(m * n * (m + n + 1) / 12)
        cut = m * n / 2 - NormalDist().inv_cdf((1 + _CONFIDENCE) / 2) * deviation
        return max(ceil(cut) - 1, 0), _CONFIDENCE
    ways = [_ways(m, n, u) for u in range(m * n + 1)]
    total = sum(ways)
    cut, tail = 0, ways[0]  # leaving out ``cut`` at each end errs when the statistic is at most that
    while cut + 1 < m * n / 2 and 2 * (tail + ways[cut + 1]) / total <= 1 - _CONFIDENCE:
        cut += 1
        tail += ways[cut]
    return cut, max(1 - 2 * tail / total, 0.0)


@cache
def _ways(m: int, n: int, u: int) -> int:
    """In how many orders of m and n values the Mann-Whitney statistic is u."""
    if u < 0 or u > m * n:
        return 0
    if not m or not n:
        return 1
    return _ways(m - 1, n, u - n) + _ways(m, n - 1, u)


def as_text(comparison: Comparison, tolerance: float) -> str:
    lines = [f"{'':<18}{'A':>12}{'B':>12}{'B to A':>9}   {'confidence interval':<26}"]
    for figure in comparison.figures:
        verdict = "✗ worse" if figure.worse else "✓ better" if figure.better else "  same within noise"
        if figure.name.endswith("success"):
            shown = f"{figure.a:>12.2%}{figure.b:>12.2%}{figure.ratio:>9.3f}   {'':<26}"
        else:
            interval = f"{figure.low:.3f} to {figure.high:.3f} ({figure.confidence:.0%})"
            a, b = (f"{x:.2f}" if figure.name.endswith("throughput") else f"{x:.1f}ms" for x in (figure.a, figure.b))
            shown = f"{a:>12}{b:>12}{figure.ratio:>9.3f}   {interval:<26}"
        lines.append(f"{figure.name:<18}{shown}{verdict}")
    runs_a, runs_b = comparison.runs
    if comparison.between_runs:
        lines.append(
            f"\nThe noise is that between {runs_a} runs of A and {runs_b} of B; "
            f"{tolerance:.0%} of difference is accepted."
        )
    else:
        lines.append(
            f"\nWith {runs_a} and {runs_b} runs only the noise between the seconds of a run is known,\n"
            f"not that between runs, which is often larger: use --runs {_FEW_RUNS} or more. "
            f"{tolerance:.0%} of difference is accepted."
        )
    lines.append(f"B is {'✗ worse' if comparison.worse else '✓ not worse'} than A.")
    return "\n".join(lines)
