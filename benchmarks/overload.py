"""What is asked for beyond what can be had: goodput, how fast refusals are, and how soon all is well again.

    python -m benchmarks.overload [--seconds 20]

One embedded service, and `hubbub perftest` against it: near its peak, at twice that with ten times the connections, and
then the standard load at once. The generator runs on the same two cores, so goodput is lower than by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from hubbub.loadtest.stack import EmbeddedStack

_STEPS = (
    ("near the peak", 7000, 14000, 100),
    ("twice the peak", 14000, 28000, 1000),
    ("twice the peak, 3,000 connections", 14000, 28000, 3000),
    ("the standard load, right after", 5000, 10000, 100),
)


def run(url: str, out: Path, writes: int, reads: int, workers: int, seconds: int) -> dict[str, Any]:
    options = ("--writes", writes, "--reads", reads, "--workers", workers, "--duration", seconds, "--json", out)
    command = [sys.executable, "-m", "hubbub", "perftest", "--url", url, *map(str, options)]
    subprocess.run(command, stdout=sys.stderr, check=False)
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@click.command()
@click.option("--seconds", default=20, show_default=True)
def main(seconds: int) -> None:
    click.echo("| load | asked for /s | answered well /s | refused | P99 from sent, writes | reads | memory |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- |")
    with EmbeddedStack() as stack, tempfile.TemporaryDirectory() as scratch:
        for name, writes, reads, workers in _STEPS:
            result = run(stack.url, Path(scratch) / "result.json", writes, reads, workers, seconds)
            sides = (result["writes"], result["reads"])
            good = sum((side["total"] - side["failed"]) / result["duration_s"] for side in sides)
            failed = sum(side["failed"] for side in sides)
            p99 = [side["uncorrected_ms"]["p99"] for side in sides]
            memory = max(part["peak_bytes"] for part in result["parts"].values()) / 1e6
            click.echo(
                f"| {name} | {writes + reads} | {good:.0f} | {failed} | {p99[0]:.0f} ms | {p99[1]:.0f} ms "
                f"| {memory:.0f} MB |"
            )


if __name__ == "__main__":
    main()
