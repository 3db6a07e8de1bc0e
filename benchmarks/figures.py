"""Print the table of figures for README and docs/performance.md.

``scripts/figures.sh [--rounds 3] [--cluster]`` makes the runs in turns, each a ``hubbub perftest`` against a private
service. The table has each run's median round, by the P99 of its writes. A round takes about two minutes. With
--cluster it also has a run against a private cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RUNS = {
    "quick": ["--duration", "10", "--workers", "50"],
    "standard": [],
    "stress": ["--writes", "10000", "--reads", "20000", "--duration", "30", "--workers", "200"],
}
HEAD = (
    "| run | writes + reads a second | P50, ms (writes / reads) | P99, ms | failed | service's cores | its memory "
    "| generator's cores |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
)
CLUSTER = {"cluster, standard": ["--stack", "cluster"]}


def ran(options: list[str], folder: Path) -> dict[str, Any]:
    """Make one run and return its result. A run that fails has one too."""
    file = folder / "result.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "hubbub", "perftest", "--json", str(file), *options]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}.")
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def row(name: str, rounds: list[dict[str, Any]]) -> str:
    """Return the table's row for the median round."""
    median = statistics.median_low(each["writes"]["latency_ms"]["p99"] for each in rounds)
    result = next(each for each in rounds if each["writes"]["latency_ms"]["p99"] == median)
    sides = result["writes"], result["reads"]
    parts = result["parts"].values()
    cells = [
        name,
        " + ".join(f"{side['throughput']:,.0f}" for side in sides),
        " / ".join(f"{side['latency_ms']['p50']:,.0f}" for side in sides),
        " / ".join(f"{side['latency_ms']['p99']:,.0f}" for side in sides),
        f"{sum(side['failed'] for side in sides)}",
        f"{sum(part['cores'] for part in parts):.2f}",
        f"{sum(part['peak_bytes'] for part in parts) / 1e6:,.0f} MB",
        f"{result['generator']['cores']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--cluster", action="store_true")
    options = asked.parse_args()
    runs = RUNS | (CLUSTER if options.cluster else {})
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, arguments in runs.items():
                results[name].append(ran(arguments, Path(folder)))
    print(HEAD)
    for name, rounds in results.items():
        print(row(name, rounds))
    print(
        f"\nMedians of {options.rounds} rounds in turns, {datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores"
        f" ({platform.machine()}), load generator on them."
    )


if __name__ == "__main__":
    main()
