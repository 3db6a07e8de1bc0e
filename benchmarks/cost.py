"""The CPU time that a request takes in the service and in the load generator, beside a server that stores nothing.

    python -m benchmarks.cost [NAME=SRC ...] [--rounds 3] [--writes 5000] [--reads 10000] [--seconds 10]

In each round the servers take turns: the trivial server, the embedded service of this checkout, and one of each SRC,
the src folder of another build. The generator of this checkout loads all of them, with one process. The figures are
medians of the rounds. The CPU time is user and system time of all processes of a server during the test phase.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from hubbub.loadtest.process import Part
from hubbub.loadtest.usage import Meter

T = TypeVar("T")

_TRIVIAL = "a server that stores nothing"


class Figures(NamedTuple):
    """The figures of one run: CPU microseconds a request, requests a second, and the P99 from due in milliseconds."""

    service_us: float
    generator_us: float
    rate: float
    p99_writes: float
    p99_reads: float


@contextmanager
def trivial(folder: Path) -> Iterator[tuple[str, int]]:
    """Run the trivial server and yield its URL and process id."""
    command = [sys.executable, "-m", "benchmarks.trivial_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
        process.terminate()


@contextmanager
def embedded(folder: Path, settings: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run a service with these environment variables on an empty data folder, and yield its URL and process id."""
    part = Part(["serve", "--port", "0", "--data", str(folder / "data")], settings, folder / "log")
    part.start()
    try:
        yield part.url, part.pid
    finally:
        part.stop()


def loaded(url: str, options: list[str], out: Path, read: Callable[[], T]) -> tuple[Any, T, T]:
    """Run the load tester once. Returns its result, and what ``read`` returned at both ends of the test phase."""
    command = [
        sys.executable,
        "-m",
        "hubbub",
        "perftest",
        "--url",
        url,
        "--keep",
        "--processes",
        "1",
        "--json",
        str(out),
    ]
    at_ends: list[T] = []
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            # The test phase is between these two lines.
            if line.startswith("Phase 3") or (line.startswith("=") and len(at_ends) == 1):
                at_ends.append(read())
    result = json.loads(out.read_text())
    if len(at_ends) != 2 or not answered_in(result):
        raise SystemExit(f"The run against {url} ended too early.")
    return result, at_ends[0], at_ends[1]


def answered_in(result: Any) -> int:
    """How many requests were answered well."""
    return sum(side["total"] - side["failed"] for side in (result["writes"], result["reads"]))


def measure(url: str, pid: int, options: list[str], out: Path) -> Figures:
    result, before, after = loaded(url, options, out, Meter(pid).cpu_s)
    answered = answered_in(result)
    return Figures(
        (after - before) / answered * 1e6,
        result["generator"]["cores"] * result["duration_s"] / answered * 1e6,
        answered / result["duration_s"],
        *(result[side]["latency_ms"]["p99"] for side in ("writes", "reads")),
    )


@click.command()
@click.argument("builds", nargs=-1, metavar="[NAME=SRC]...")
@click.option("--rounds", default=3, show_default=True)
@click.option("--writes", default=5000, show_default=True, help="Writes a second.")
@click.option("--reads", default=10000, show_default=True, help="Reads a second.")
@click.option("--seconds", default=10, show_default=True)
def main(builds: tuple[str, ...], rounds: int, writes: int, reads: int, seconds: int) -> None:
    options = ["--writes", str(writes), "--reads", str(reads), "--duration", str(seconds)]
    others = dict(build.split("=", 1) for build in builds)
    services = {"embedded": os.environ.get("PYTHONPATH", "").split(os.pathsep)[0], **others}
    runs: dict[str, list[Figures]] = {name: [] for name in (_TRIVIAL, *services)}
    for _ in range(rounds):
        for name, measured in runs.items():
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                server = trivial(folder) if name == _TRIVIAL else embedded(folder, {"PYTHONPATH": services[name]})
                with server as (url, pid):
                    measured.append(measure(url, pid, options, folder / "result.json"))
    click.echo("| server | answered /s | CPU a request | beside the first | generator's | P99, writes / reads |")
    click.echo("| --- | --- | --- | --- | --- | --- |")
    floor = statistics.median(figures.service_us for figures in runs[_TRIVIAL])
    for name, measured in runs.items():
        median = Figures(*map(statistics.median, zip(*measured, strict=True)))
        click.echo(
            f"| {name} | {median.rate:,.0f} | {median.service_us:.1f} µs | {median.service_us / floor:.1f} × "
            f"| {median.generator_us:.1f} µs | {median.p99_writes:,.0f} / {median.p99_reads:,.0f} ms |"
        )


if __name__ == "__main__":
    main()
