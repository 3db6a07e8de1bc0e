"""How the throughput of one embedded service grows with the processes that serve.

    python -m benchmarks.processes [--serving 1 --serving 2 ...] [--share 20] [--rounds 3] [--seconds 10]

Each process that serves may use a share of one core (percent) in the test, which a control group of the system
enforces: so a machine with fewer cores than processes shows what more cores would do. Committing, searching and the
load generator have what is left, which must be enough. The load, 30,000 requests a second, must be more than can be
held: choose the share so that it is. In each round the numbers of processes
take turns; the figures are medians. It needs the right to make control groups (version 1, cpu).
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import psutil
from benchmarks.cost import answered_in, embedded, loaded

_GROUPS = Path("/sys/fs/cgroup/cpu")
_PERIOD_US = 10_000


class Figures(NamedTuple):
    """Requests a second; CPU microseconds a request of those that serve, of committing and of searching; and the part
    of all requests' CPU time that the busiest process that serves used.
    """

    rate: float
    serving_us: float
    commit_us: float
    search_us: float
    busiest: float


@contextmanager
def limited(pids: list[int], share: int) -> Iterator[None]:
    """Each of the processes may use this share of a core, in percent."""
    groups = [_GROUPS / f"hubbub-benchmark-{pid}" for pid in pids]
    for pid, group in zip(pids, groups, strict=True):
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(_PERIOD_US * share // 100))
        (group / "cgroup.procs").write_text(str(pid))
    try:
        yield
    finally:
        for pid, group in zip(pids, groups, strict=True):
            (_GROUPS / "cgroup.procs").write_text(str(pid))
            group.rmdir()


def measure(serving: int, share: int, seconds: int) -> Figures:
    settings = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "HUBBUB_PROCESSES": str(serving)}
    options = ["--writes", "10000", "--reads", "20000", "--workers", "200", "--duration", str(seconds)]
    with tempfile.TemporaryDirectory() as scratch, embedded(Path(scratch), settings) as (url, pid):
        parts = {each.name(): each for each in psutil.Process(pid).children()}
        commit, search = parts.pop("hubbub-commit"), parts.pop("hubbub-search")
        serve = [psutil.Process(pid), *parts.values()]
        assert len(serve) == serving

        with ExitStack() as test:
            limit = cache(lambda: test.enter_context(limited([each.pid for each in serve], share)))

            def cpu_s() -> list[float]:
                limit()  # from the first call on: the setup hashes passwords, which would take minutes
                times = [each.cpu_times() for each in (commit, search, *serve)]
                return [each.user + each.system for each in times]

            result, before, after = loaded(url, options, Path(scratch) / "result.json", cpu_s)
    spent = [(b - a) * 1e6 / answered_in(result) for a, b in zip(before, after, strict=True)]
    in_serving = spent[2:]
    rate = answered_in(result) / result["duration_s"]
    return Figures(rate, sum(in_serving), spent[0], spent[1], max(in_serving) / sum(in_serving))


@click.command()
@click.option("--serving", multiple=True, type=int, default=[1, 2, 4], show_default=True)
@click.option("--share", default=20, show_default=True, help="Of a core, for each process, in percent.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=10, show_default=True)
def main(serving: tuple[int, ...], share: int, rounds: int, seconds: int) -> None:
    runs: dict[int, list[Figures]] = {count: [] for count in serving}
    for _ in range(rounds):
        for count, measured in runs.items():
            measured.append(measure(count, share, seconds))
    medians = {count: Figures(*map(statistics.median, zip(*measured, strict=True))) for count, measured in runs.items()}
    first, one = next(iter(medians.items()))
    click.echo(
        "| processes | answered /s | beside the first row, for each process | serving | commit | search | busiest |"
    )
    click.echo("| --- | --- | --- | --- | --- | --- | --- |")
    for count, each in medians.items():
        click.echo(
            f"| {count} | {each.rate:,.0f} | {each.rate / count / (one.rate / first):.2f} | {each.serving_us:.1f} µs"
            f" | {each.commit_us:.1f} µs | {each.search_us:.1f} µs | {each.busiest:.0%} |"
        )


if __name__ == "__main__":
    main()
