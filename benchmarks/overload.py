"""What is asked for beyond what can be had, and clients who mean harm: goodput, latency, memory, and how soon all is
well again.

    python -m benchmarks.overload [--seconds 20]

One embedded service, and `hubbub perftest` against it: near its peak, at twice that with ten times the connections, and
then the standard load at once; and the standard load beside 400 clients of each kind in tests/abuse/hostile.py. The
generator runs on the same two cores, so goodput is lower than by itself.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from tests.abuse.hostile import WAYS, largest_file

from hubbub.loadtest.stack import EmbeddedStack

_STEPS = (
    ("near the peak", 7000, 14000, 100),
    ("twice the peak", 14000, 28000, 1000),
    ("twice the peak, 3,000 connections", 14000, 28000, 3000),
    ("the standard load, right after", 5000, 10000, 100),
)
_HOSTILE = 400
_HOLD_S = 5.0


async def _attack(url: str, data: bytes) -> None:
    parts = urlsplit(url)

    async def client() -> None:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(data)
                await asyncio.sleep(_HOLD_S)
                writer.transport.abort()
            await asyncio.sleep(0.1)

    await asyncio.gather(*(client() for _ in range(_HOSTILE)))


def _attacker(url: str, data: bytes) -> None:
    asyncio.run(_attack(url, data))


@contextmanager
def attacked(url: str, data: bytes) -> Iterator[None]:
    """Clients who come back every five seconds, in a process of their own."""
    process = multiprocessing.Process(target=_attacker, args=(url, data))
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def run(url: str, out: Path, writes: int, reads: int, workers: int, seconds: int) -> dict[str, Any]:
    options = ("--writes", writes, "--reads", reads, "--workers", workers, "--duration", seconds, "--json", out)
    command = [sys.executable, "-m", "hubbub", "perftest", "--url", url, "--keep", *map(str, options)]
    subprocess.run(command, stdout=sys.stderr, check=False)
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def show(name: str, result: dict[str, Any], asked: int) -> None:
    sides = (result["writes"], result["reads"])
    good = sum((side["total"] - side["failed"]) / result["duration_s"] for side in sides)
    failed = sum(side["failed"] for side in sides)
    p99 = [side["uncorrected_ms"]["p99"] for side in sides]
    memory = max(part["peak_bytes"] for part in result["parts"].values()) / 1e6
    click.echo(f"| {name} | {asked} | {good:.0f} | {failed} | {p99[0]:.0f} ms | {p99[1]:.0f} ms | {memory:.0f} MB |")


@click.command()
@click.option("--seconds", default=20, show_default=True)
def main(seconds: int) -> None:
    click.echo("| load | asked for /s | answered well /s | refused | P99 from sent, writes | reads | memory |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- |")
    with EmbeddedStack() as stack, tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "result.json"
        for name, writes, reads, workers in _STEPS:
            show(name, run(stack.url, out, writes, reads, workers, seconds), writes + reads)
        file = largest_file(stack.url)
        for way in WAYS:
            with attacked(stack.url, way(file)):
                result = run(stack.url, out, 5000, 10000, 100, seconds)
            show(f"the standard load, beside {way.__name__.replace('_', ' ')}", result, 15000)


if __name__ == "__main__":
    main()
