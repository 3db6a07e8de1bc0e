"""A whole test: setup, warmup, the test phase as often as asked, and what is made of it."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import ceil

import click
import msgspec

from hubbub.loadtest.fleet import Fleet, fleet
from hubbub.loadtest.mix import Size
from hubbub.loadtest.plan import WARMUP_S, Plan
from hubbub.loadtest.profile import Stage, steady
from hubbub.loadtest.requirement import Requirement
from hubbub.loadtest.run import Moment, Run
from hubbub.loadtest.script import Workload
from hubbub.loadtest.setup import prepare, stranger
from hubbub.loadtest.usage import Watch
from hubbub.loadtest.verdict import Result, result
from hubbub.loadtest.view import View

_ONE_PROCESS_RATE = 30_000


@dataclass(frozen=True)
class Options:
    """What was asked for. ``processes`` 0: chosen by the rate and the cores."""

    writes: int
    reads: int
    workers: int
    stages: tuple[Stage, ...]
    mix: dict[str, int]
    size: Size
    chats: int = 1
    members: int = 1
    zipf: float = 0.0
    seed: int = 1
    processes: int = 0
    machines: int = 0
    listen: tuple[str, int] = ("127.0.0.1", 0)
    runs: int = 1
    verify: bool = False
    requirements: list[Requirement] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        return Plan(self.writes, self.reads, self.workers, self.stages)

    @property
    def local(self) -> int:
        """Generator processes on this machine."""
        peak = max(max(stage.start, stage.end) for stage in self.stages) * (self.writes + self.reads)
        wanted = self.processes or min(ceil(peak / _ONE_PROCESS_RATE), os.cpu_count() or 1)
        return max(min(wanted, self.workers), 1)

    def described(self, url: str) -> dict[str, object]:
        """All of it, and the machine, as a result's reader needs them to judge or repeat the run."""
        return {
            "url": url,
            "writes": self.writes,
            "reads": self.reads,
            "workers": self.workers,
            "stages": msgspec.to_builtins(self.stages),
            "mix": self.mix,
            "message_size": msgspec.to_builtins(self.size),
            "chats": self.chats,
            "members": self.members,
            "zipf": self.zipf,
            "seed": self.seed,
            "processes": self.local,
            "machines": self.machines,
            "machine": {
                "cores": os.cpu_count(),
                "system": platform.platform(),
                "python": platform.python_version(),
            },
        }


class Bench:
    """A service that is set up, and generators that are connected to it."""

    def __init__(self, options: Options, url: str, pids: dict[str, int], view: View, generators: Fleet) -> None:
        self._options = options
        self._url = url
        self._pids = pids
        self._view = view
        self._fleet = generators

    async def warm_up(self) -> None:
        options = self._options
        self._view.phase(f"Phase 2: warmup ({WARMUP_S:.0f} seconds)")
        plan = Plan(options.writes, options.reads, options.workers, steady(WARMUP_S))
        await self._fleet.run(plan, lambda run, moment: None)

    async def test(self, plan: Plan) -> tuple[Run, Result]:
        """One test phase."""
        watch = Watch(self._pids)
        following: asyncio.Task[None] | None = None

        def seen(run: Run, moment: Moment) -> None:
            self._view.second(run, moment, watch.samples[-1] if watch.samples else None)

        def begun(run: Run) -> None:
            nonlocal following
            following = asyncio.ensure_future(watch.follow(run.started))

        self._view.begin(plan)
        try:
            run = await self._fleet.run(plan, seen, begun)
        finally:
            self._view.end()
            if following is not None:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
        checks = [requirement.check(run) for requirement in self._options.requirements]
        return run, result(run, parts=watch.usages(), samples=watch.samples, checks=checks)

    async def verified(self, results: list[Result]) -> list[Result]:
        """The results, the last one with what reading everything back found."""
        self._view.phase("Phase 4: reading back what was acknowledged")
        findings = await self._fleet.verify(await stranger(self._url))
        return [*results[:-1], msgspec.structs.replace(results[-1], findings=findings)]


@asynccontextmanager
async def bench(options: Options, url: str, pids: dict[str, int], view: View) -> AsyncIterator[Bench]:
    """Phase 1. Raises SetupFailed, GeneratorLost."""
    key = secrets.token_urlsafe(18)

    def waiting(port: int) -> None:
        click.echo(f"Waiting for {options.machines} more. On each of the other machines:")
        click.echo(f"  HUBBUB_PERFTEST_KEY={key} hubbub perftest join {options.listen[0]}:{port}")

    view.phase("Phase 1: setup")
    seats = await prepare(url, options.workers, chats=options.chats, members=options.members)
    async with fleet(
        key, processes=options.local, machines=options.machines, listen=options.listen, waiting=waiting
    ) as generators:
        run = secrets.token_hex(4)
        workload = Workload(options.mix, options.size, options.zipf, options.seed, run, options.verify)
        await generators.assign(url, seats, workload)
        yield Bench(options, url, pids, view, generators)


async def conduct(options: Options, url: str, pids: dict[str, int], view: View) -> list[Result]:
    """The results of all runs. Raises SetupFailed, GeneratorLost."""
    async with bench(options, url, pids, view) as ready:
        await ready.warm_up()
        results = []
        for number in range(options.runs):
            which = f", run {number + 1} of {options.runs}" if options.runs > 1 else ""
            view.phase(f"Phase 3: test ({options.plan.seconds:.0f} seconds{which})")
            results.append((await ready.test(options.plan))[1])
        return await ready.verified(results) if options.verify else results
