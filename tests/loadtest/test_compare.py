"""One result is called worse than another if it is, and rarely by chance."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hubbub.loadtest.compare import Incomparable, compare, read, shift


def content(seed: int, *, slower: float = 1.0, runs: int = 5, success: float = 1.0) -> dict[str, Any]:
    rng = random.Random(seed)

    def side() -> dict[str, Any]:
        p99 = 40 * slower * rng.lognormvariate(0, 0.2)
        return {
            "throughput": 1000 / slower * rng.uniform(0.98, 1.02),
            "success_rate": success,
            "latency_ms": {"p50": p99 / 10, "p95": p99 / 2, "p99": p99},
        }

    def second() -> dict[str, Any]:
        p99 = 40 * slower * rng.lognormvariate(0, 0.2)
        return {"rate": 1000 / slower, "p50": p99 / 10, "p95": p99 / 2, "p99": p99}

    each = [
        {"writes": side(), "reads": side(), "seconds": [{"writes": second(), "reads": second()} for _ in range(30)]}
        for _ in range(runs)
    ]
    return {
        "target": {"writes": 5, "reads": 5},
        "workers": 3,
        "settings": {"mix": {"send": 1}},
        **each[0],
        "runs": each,
    }


def written(folder: Path, name: str, what: dict[str, Any]) -> Path:
    file = folder / name
    file.write_text(json.dumps(what))
    return file


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "hubbub", "perftest", "compare", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def test_a_result_that_is_a_half_slower_is_worse_and_the_other_way_better(tmp_path: Path) -> None:
    fast, slow = written(tmp_path, "a", content(1)), written(tmp_path, "b", content(2, slower=2))
    done = command(fast, slow)
    assert done.returncode == 1, done.stderr
    assert "B is ✗ worse than A" in done.stdout
    assert "5 runs of A" in done.stdout
    back = command(slow, fast)
    assert back.returncode == 0
    assert "✓ better" in back.stdout


@pytest.mark.parametrize("runs", [1, 5])
def test_noise_alone_is_rarely_called_worse(runs: int, tmp_path: Path) -> None:
    worse = 0
    for seed in range(40):
        a, b = (
            read(written(tmp_path, name, content(seed + start, runs=runs))) for name, start in (("a", 0), ("b", 999))
        )
        worse += compare(a, b, 0.05).worse
    # With six latencies at 95 % and a tolerance of 5 %, two in a hundred are usual. Five in forty are far more.
    assert worse < 5


def test_single_runs_are_compared_by_their_seconds_and_the_output_says_so(tmp_path: Path) -> None:
    a, b = written(tmp_path, "a", content(1, runs=1)), written(tmp_path, "b", content(2, slower=1.5, runs=1))
    done = command(a, b)
    assert done.returncode == 1
    assert "not that between runs" in done.stdout


def test_more_failures_are_worse(tmp_path: Path) -> None:
    a, b = (read(written(tmp_path, name, what)) for name, what in (("a", content(1)), ("b", content(1, success=0.99))))
    assert [figure.name for figure in compare(a, b, 0.05).figures if figure.worse] == [
        "writes.success",
        "reads.success",
    ]


def test_a_folder_is_all_its_results(tmp_path: Path) -> None:
    for number in range(4):
        written(tmp_path, f"{number}.json", content(number, runs=1))
    measured = read(tmp_path)
    assert len(measured.runs) == len(measured.reports) == 4


def test_results_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    other = copy.deepcopy(content(1))
    other["target"]["writes"] = 6
    a, b = written(tmp_path, "a", content(1)), written(tmp_path, "b", other)
    done = command(a, b)
    assert done.returncode == 2
    assert "asked for different loads" in done.stderr
    with pytest.raises(Incomparable):
        read(written(tmp_path, "c", {"x": 1}))
    assert command(a, tmp_path / "absent").returncode == 2


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(3)
    covered = 0
    for _ in range(400):
        a = [rng.lognormvariate(0, 0.3) for _ in range(5)]
        b = [1.2 * rng.lognormvariate(0, 0.3) for _ in range(5)]
        ratio, low, high, confidence = shift(a, b)
        assert low <= ratio <= high
        covered += low <= 1.2 <= high
    assert confidence == pytest.approx(0.968, abs=0.001)  # U at most 2 of 25: 4 of 252 orders on either side
    assert 0.94 < covered / 400 < 0.995
    assert shift([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])[3] == pytest.approx(0.9)


def test_the_shown_figures_are_those_of_the_reports(tmp_path: Path) -> None:
    """This holds for a single run, of which the seconds are compared, and for the reported one of several runs."""
    single, several = content(1, runs=1), content(2)
    several |= several["runs"][3]  # the reported run
    done = command(written(tmp_path, "a", single), written(tmp_path, "b", several))
    for side in ("writes", "reads"):
        for name in ("p50", "p95", "p99"):
            row = next(line for line in done.stdout.splitlines() if line.startswith(f"{side}.{name}"))
            assert row.split()[1:3] == [f"{each[side]['latency_ms'][name]:.1f}ms" for each in (single, several)]
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"{side}.throughput"))
        assert row.split()[1:3] == [f"{each[side]['throughput']:.2f}" for each in (single, several)]
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"{side}.success"))
        assert row.split()[1:3] == ["100.00%", "100.00%"]
