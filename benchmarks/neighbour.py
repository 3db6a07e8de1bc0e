"""Print the standard run alone, and beside a neighbour that uses half a core.

    PYTHONPATH=. .venv/bin/python -m benchmarks.neighbour [--rounds 3] [--duration 30]

The runs take turns; the table has each kind's median round, by the P99 of its writes. The neighbour has the same
priority as the service: it computes for 5 ms and sleeps for as long.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from benchmarks.figures import HEAD, ran, row

_BUSY = """
import time
while True:
    until = time.monotonic() + 0.005
    while time.monotonic() < until:
        pass
    time.sleep(0.005)
"""


@contextmanager
def neighbour() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", _BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--duration", default=30, show_default=True, help="Seconds of each run.")
def main(rounds: int, duration: int) -> None:
    alone: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(rounds):
            alone.append(ran(["--duration", str(duration)], Path(scratch)))
            with neighbour():
                beside.append(ran(["--duration", str(duration)], Path(scratch)))
    click.echo(HEAD)
    click.echo(row("alone", alone))
    click.echo(row("beside a neighbour", beside))


if __name__ == "__main__":
    main()
