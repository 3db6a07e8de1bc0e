"""Runs a whole test: setup, warmup, the test phase once or several times, and reading back."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import ceil

import click
import msgspec

from hubbub.loadtest.find_max import Found, Trial, find_max
from hubbub.loadtest.fleet import Fleet, fleet
from hubbub.loadtest.mix import Size
from hubbub.loadtest.plan import WARMUP_S, Plan
from hubbub.loadtest.profile import Stage, steady
from hubbub.loadtest.report import without_metrics
from hubbub.loadtest.requirement import Requirement
from hubbub.loadtest.run import SIDES, Moment, Run
from hubbub.loadtest.scenario import Workload
from hubbub.loadtest.service import Service
from hubbub.loadtest.setup import prepare, stranger
from hubbub.loadtest.usage import Watch
from hubbub.loadtest.verdict import GOOD_MS, Result, result
from hubbub.loadtest.view import Quiet, View

TRIAL_S = 10
_ONE_PROCESS_RATE = 30_000
_RUN_UP_S = 2.0
_NOTED = 2_000_000  # messages, of some 200 bytes each over all generators


@dataclass(frozen=True)
class Options:
    """The options of a test. ``processes`` 0: chosen by the rate and the cores."""

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
    def note(self) -> int:
        """One of this many sends of a worker is noted for reading back, so that the notes fit into memory; 0: none."""
        sends = self.plan.targets[0] * self.plan.seconds * self.runs + self.writes * WARMUP_S
        return max(ceil(sends / _NOTED), 1) if self.verify else 0

    @property
    def local(self) -> int:
        """Generator processes on this machine."""
        peak = max(max(stage.start, stage.end) for stage in self.stages) * (self.writes + self.reads)
        wanted = self.processes or min(ceil(peak / _ONE_PROCESS_RATE), os.cpu_count() or 1)
        return max(min(wanted, self.workers), 1)

    def described(self, url: str) -> dict[str, object]:
        """All options, as a reader of the result needs them to judge or repeat the run."""
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
        }


class Bench:
    """A service that is set up, and generators that are connected to it."""

    def __init__(self, options: Options, service: Service, view: View, generators: Fleet) -> None:
        self._options = options
        self._service = service
        self._view = view
        self._fleet = generators

    async def warm_up(self) -> None:
        options = self._options
        self._view.phase(f"Phase 2: warmup ({WARMUP_S:.0f} seconds)")
        plan = Plan(options.writes, options.reads, options.workers, steady(WARMUP_S))
        await self.run_up(plan)

    async def run_up(self, plan: Plan) -> None:
        """Run a phase without recording it."""
        await self._fleet.run(plan, lambda run, moment: None)

    async def test(self, plan: Plan) -> Result:
        """Run one test phase."""
        watch = Watch(self._service.url, self._service.pids, plan.interval)
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
            await watch.finish()
        checks = [requirement.check(run) for requirement in self._options.requirements]
        return result(
            run,
            parts=watch.usages(),
            samples=watch.samples,
            checks=checks,
            served=watch.served(),
            metrics_unusable=watch.unusable,
        )

    async def verified(self, results: list[Result]) -> list[Result]:
        """Read everything back. Returns the results, the last one with the findings."""
        self._view.phase("Phase 4: reading back what was acknowledged")
        findings = await self._fleet.verify(await stranger(self._service.accounts))
        findings = msgspec.structs.replace(findings, every=self._options.note)
        return [*results[:-1], msgspec.structs.replace(results[-1], findings=findings)]


@asynccontextmanager
async def bench(options: Options, service: Service, view: View) -> AsyncIterator[Bench]:
    """Run phase 1, the setup. Raises SetupFailed, GeneratorLost."""
    key = secrets.token_urlsafe(18)

    def waiting(port: int) -> None:
        click.echo(f"Waiting for {options.machines} more. On each of the other machines:")
        click.echo(f"  HUBBUB_PERFTEST_KEY={key} hubbub perftest join {options.listen[0]}:{port}")

    view.phase("Phase 1: setup")
    users = await prepare(service.accounts, options.workers, chats=options.chats, members=options.members)
    async with fleet(
        key, processes=options.local, machines=options.machines, listen=options.listen, waiting=waiting
    ) as generators:
        run = service.accounts.run
        workload = Workload(options.mix, options.size, options.zipf, options.seed, run, options.note)
        await generators.assign(service.url, users, workload)
        yield Bench(options, service, view, generators)


def goals(writes: float, reads: float) -> list[Requirement]:
    """The goals of a rate: 99 % of it served, 99.9 % with success, and the latency goals."""
    asked = [name for name, rate in zip(SIDES, (writes, reads), strict=True) if rate]
    return [
        Requirement(f"{name}.{goal}")
        for name in asked
        for goal in (
            "throughput>=99%",
            "success>=99.9%",
            f"p95<{GOOD_MS[name][0]:g}ms",
            f"p99<{GOOD_MS[name][1]:g}ms",
        )
    ]


async def search(options: Options, service: Service, length: int) -> Found:
    """Search for the highest rate that meets the goals in trials of ``length`` seconds. Raises SetupFailed,
    GeneratorLost."""
    kept = options.requirements or goals(options.writes, options.reads)
    asked = dataclasses.replace(options, requirements=kept, verify=False)
    click.echo("Searching for the highest rate that meets " + ", ".join(each.text for each in kept) + "\n")
    async with bench(asked, service, Quiet()) as ready:
        warned = False

        async def attempt(factor: float) -> Trial:
            writes, reads = asked.writes * factor, asked.reads * factor
            await ready.run_up(Plan(writes, reads, asked.workers, steady(min(_RUN_UP_S, length / 2))))
            seen = await ready.test(Plan(writes, reads, asked.workers, steady(length)))
            nonlocal warned
            if seen.metrics_unusable is not None and not warned:
                warned = True
                click.echo(without_metrics(seen.metrics_unusable))
            trial = Trial(
                factor=factor,
                writes=writes,
                reads=reads,
                held=seen.passed,
                writes_p99_ms=seen.writes.latency.p99,
                reads_p99_ms=seen.reads.latency.p99,
                why=", ".join(f"{check.requirement} was {check.measured}" for check in seen.checks if not check.held),
                limited=seen.generator.limit is not None,
            )
            click.echo(_line(trial))
            return trial

        found = await find_max(attempt)
    click.echo("\n" + _sureness(found, asked))
    return found


def _line(trial: Trial) -> str:
    end = "the generator was the limit" if trial.limited else trial.why
    return (
        f"{'✓' if trial.held else '✗'} {trial.writes:>8.0f} + {trial.reads:>8.0f}/s"
        f"   P99 {trial.writes_p99_ms:>8.1f} and {trial.reads_p99_ms:>8.1f}ms   {end}"
    ).rstrip()


def _sureness(found: Found, options: Options) -> str:
    def rates(factor: float) -> str:
        return f"{options.writes * factor:.0f} writes/s + {options.reads * factor:.0f} reads/s"

    if not found.factor:
        return "No rate held, down to the lowest tried."
    held, of = found.held_of
    lines = [f"Highest rate that held: {rates(found.factor)} ({held} of {of} trials)"]
    if found.failed is not None:
        failed, of = found.failed_of
        lines.append(
            f"Lowest that did not:    {rates(found.failed)} ({failed} of {of} trials), "
            f"{found.failed / found.factor - 1:.1%} above"
        )
    if found.limited:
        lines.append(
            "The load generator was the limit above that: the service may hold more. Give it more --processes."
        )
    return "\n".join(lines)


async def run_test(options: Options, service: Service, view: View) -> list[Result]:
    """Run the test. Returns the results of all runs. Raises SetupFailed, GeneratorLost."""
    writes, reads = options.plan.targets
    click.echo(f"Target:         {writes:g} writes/sec, {reads:g} reads/sec")
    click.echo(f"Duration:       {options.plan.seconds:g} seconds, {options.workers} workers\n")
    async with bench(options, service, view) as ready:
        await ready.warm_up()
        results = []
        for number in range(options.runs):
            which = f", run {number + 1} of {options.runs}" if options.runs > 1 else ""
            view.phase(f"Phase 3: test ({options.plan.seconds:.0f} seconds{which})")
            results.append(await ready.test(options.plan))
        return await ready.verified(results) if options.verify else results
