"""The perftest command: setup, warmup, test, verdict."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import click
import uvloop

from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.plan import PROGRESS_S, READ, WARMUP_S, WRITE, Plan
from hubbub.loadtest.process import StackFailed
from hubbub.loadtest.report import as_json, heading, progress, report
from hubbub.loadtest.runner import Runner
from hubbub.loadtest.servers import ServerMissing
from hubbub.loadtest.setup import Seat, SetupFailed, prepare
from hubbub.loadtest.stack import EmbeddedStack
from hubbub.loadtest.usage import Meter
from hubbub.loadtest.verdict import Result, side
from hubbub.loadtest.wire import request
from hubbub.loadtest.worker import Worker

FAILED, UNREACHABLE = 1, 3
_DEFAULT = ("127.0.0.1", 3000)


def _check_url(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter("must look like http://HOST:PORT")
    return value


@click.command()
@click.option("--writes", default=5000, show_default=True, type=click.IntRange(0), help="Message writes a second.")
@click.option("--reads", default=10000, show_default=True, type=click.IntRange(0), help="Reads a second.")
@click.option("--duration", default=30, show_default=True, type=click.IntRange(1), help="Seconds of the test phase.")
@click.option("--workers", default=100, show_default=True, type=click.IntRange(1, 5000), help="Concurrent users.")
@click.option("--url", callback=_check_url, help="The service to test; without it, the one on port 3000 or a new one.")
@click.option(
    "--stack",
    "stack_name",
    type=click.Choice(["embedded", "cluster"]),
    help="Start a private one of this kind for the test, whatever runs on port 3000.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here.")
def perftest(
    writes: int,
    reads: int,
    duration: int,
    workers: int,
    url: str | None,
    stack_name: str | None,
    json_file: Path | None,
) -> None:
    """Load a Hubbub and say whether it holds: exit status 0 passed, 1 failed, 2 bad usage, 3 not reached."""
    if writes + reads == 0:
        raise click.UsageError("--writes and --reads can't both be 0")
    if url is not None and stack_name is not None:
        raise click.UsageError("--url and --stack exclude each other: give one of them")
    plan = Plan(writes, reads, duration, workers)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            pids: dict[str, int] = {}
            if url is None and stack_name is None and _answers(*_DEFAULT):
                url = f"http://{_DEFAULT[0]}:{_DEFAULT[1]}"
            elif url is None:
                started: EmbeddedStack | ClusterStack = ClusterStack() if stack_name == "cluster" else EmbeddedStack()
                stack.enter_context(started)
                url, pids = started.url, started.pids
            result = uvloop.run(_run(plan, url, pids))
    except (SetupFailed, StackFailed, ServerMissing) as error:
        click.echo(f"perftest: {error}", err=True)
        sys.exit(UNREACHABLE)
    except KeyboardInterrupt:
        click.echo("perftest: interrupted", err=True)
        sys.exit(130)
    click.echo(report(result))
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(result), indent=2) + "\n")
    sys.exit(0 if result.passed else FAILED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM as Ctrl-C, so that what was started is stopped."""
    raise KeyboardInterrupt


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


async def _run(plan: Plan, url: str, pids: dict[str, int]) -> Result:
    click.echo(heading("Hubbub Performance Test"))
    click.echo(f"Service:        {url}{' (started for this test)' if pids else ''}")
    click.echo(f"Target:         {plan.writes} writes/sec, {plan.reads} reads/sec")
    click.echo(f"Duration:       {plan.duration} seconds, {plan.workers} workers\n")
    click.echo("Phase 1: setup")
    seats = await prepare(url, plan.workers)
    runner = Runner(plan, url)
    runner.workers = [_worker(runner, url, seat) for seat in seats]
    try:
        await asyncio.gather(*(worker.connect() for worker in runner.workers))
    except (TimeoutError, OSError) as error:
        raise SetupFailed(f"{url} takes no connection: {error}.") from error
    click.echo(f"Phase 2: warmup ({WARMUP_S:.0f} seconds)")
    await runner.run(WARMUP_S, lambda _: None, WARMUP_S)
    click.echo(f"Phase 3: test ({plan.duration} seconds)")
    meters = {name: Meter(pid) for name, pid in pids.items()}
    generator = Meter(os.getpid(), children=False)
    last = [0, 0, 0.0]

    def show(seconds: float) -> None:
        totals = runner.recorders[WRITE].total, runner.recorders[READ].total
        step = seconds - last[2]
        click.echo(progress(seconds, *totals, (totals[0] - last[0]) / step, (totals[1] - last[1]) / step))
        last[:] = [*totals, seconds]

    took = await runner.run(plan.duration, show, PROGRESS_S)
    generator_usage = generator.read()
    parts = {name: usage for name, meter in meters.items() if (usage := meter.read()) is not None}
    await runner.close()
    click.echo("")
    written, read = runner.recorders
    return Result(plan, took, side(plan.writes, written, took), side(plan.reads, read, took), generator_usage, parts)


def _worker(runner: Runner, url: str, seat: Seat) -> Worker:
    parts = urlsplit(url)
    chats = f"{parts.path.rstrip('/')}/api/v1/applications/{seat.token}/chats"
    messages = f"{chats}/{seat.chat}/messages"
    body = b'{"body":"A message of the performance test, about as long as people write."}'
    return Worker(
        runner,
        request("POST", parts.netloc, messages, cookie=seat.cookie, body=body),
        request("GET", parts.netloc, chats, cookie=seat.cookie),
        request("GET", parts.netloc, messages, cookie=seat.cookie),
    )
