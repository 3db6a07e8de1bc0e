"""The perftest command: turns options into a test, and its result into an exit status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import msgspec
import uvloop

from hubbub.loadtest.about import About, about
from hubbub.loadtest.compare import Incomparable, as_text, read
from hubbub.loadtest.compare import compare as compared
from hubbub.loadtest.coordinator import TRIAL_S, Options, run_test, search
from hubbub.loadtest.fleet import KEY_VARIABLE
from hubbub.loadtest.generator import Unconnected, generate
from hubbub.loadtest.junit import junit
from hubbub.loadtest.mix import (
    DEFAULT_MIX,
    MATTERMOST,
    READS,
    ROUTES,
    WRITES,
    BadMix,
    BadSize,
    Size,
    parse_mix,
    parse_size,
    weight_of,
)
from hubbub.loadtest.outputs import Unwritable, try_out, write
from hubbub.loadtest.page import page
from hubbub.loadtest.profile import BadStages, Stage, parse_stages, spike, steady
from hubbub.loadtest.report import as_json, notes, report
from hubbub.loadtest.requirement import BadRequirement, Requirement
from hubbub.loadtest.service import RUNNING, UNREACHABLE, run, service
from hubbub.loadtest.verdict import Result, Verdict, rule, verdict
from hubbub.loadtest.view import view

FAILED, BAD_USAGE = 1, 2
_MOST_A_SECOND = 10_000_000  # more than all generators together could send
_LONGEST_S = 10_000_000
_SOAK_S = 3600
_SOAK_LEVEL = 0.5

T = TypeVar("T")


def _check_url(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        usable = usable and parts.username is None and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter("must look like http://HOST:PORT")
    return value


def _check_seed(_: click.Context, __: click.Parameter, value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise click.BadParameter("must fit into 64 bits")
    return value


class _FloatRange(click.FloatRange):
    """Without what is no number: it would compare as inside every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def _parsed(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A click callback that turns a text, or each of several, into what ``parse`` makes of it."""

    def callback(_: click.Context, __: click.Parameter, value: Any) -> Any:
        try:
            return [parse(each) for each in value] if isinstance(value, tuple) else value and parse(value)
        except (BadStages, BadMix, BadSize, BadRequirement, ValueError) as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must look like HOST:PORT")
    return host.strip("[]"), int(port)


_FILE = click.Path(path_type=Path)


@click.group(invoke_without_command=True, short_help="Load a Hubbub service, and say whether it keeps up.")
@click.option(
    "--writes", default=5000, show_default=True, type=click.IntRange(0, _MOST_A_SECOND), help="Message writes a second."
)
@click.option(
    "--reads", default=10000, show_default=True, type=click.IntRange(0, _MOST_A_SECOND), help="Reads a second."
)
@click.option(
    "--duration", default=30, show_default=True, type=click.IntRange(1, _LONGEST_S), help="Seconds of the test phase."
)
@click.option("--workers", default=100, show_default=True, type=click.IntRange(1, 5000), help="Concurrent users.")
@click.option("--url", callback=_check_url, help="The service to test; without it, a private one is started.")
@click.option("--running", is_flag=True, help="Test the service on port 3000 of this machine.")
@click.option("--keep", is_flag=True, help="Keep what the test creates in the service of --url or --running.")
@click.option(
    "--stack",
    "stack_name",
    type=click.Choice(["embedded", "cluster"]),
    help="The kind of private service to start (embedded).",
)
@click.option(
    "--ramp", default=0, type=click.IntRange(0, _LONGEST_S), help="Seconds to rise from zero, before the duration."
)
@click.option("--spike", type=_FloatRange(1), help="Multiply the rate by this in the middle fifth of the run.")
@click.option("--soak", is_flag=True, help="Run for an hour at half the rates.")
@click.option("--stages", callback=_parsed(parse_stages), help="Instead of --duration: 30s:50%,10s:50%-200%,60s:100%.")
@click.option(
    "--mix",
    callback=_parsed(parse_mix),
    help=f"Weights of routes: send=9,edit=1,… of {', '.join(ROUTES)}; or mattermost.",
)
@click.option(
    "--message-size",
    default="76",
    show_default=True,
    callback=_parsed(parse_size),
    help="Characters: 76, 20-400 or lognormal:MEDIAN:SIGMA.",
)
@click.option("--chats", default=1, show_default=True, type=click.IntRange(1, 1000), help="Chats in each application.")
@click.option("--zipf", default=0.0, type=_FloatRange(0, 5), help="Busy and quiet chats: exponent of Zipf's law.")
@click.option("--members", default=1, show_default=True, type=click.IntRange(1), help="Users of each application.")
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=int,
    callback=_check_seed,
    help="The same seed sends the same requests.",
)
@click.option("--processes", default=0, type=click.IntRange(0, 256), help="Generator processes; 0 chooses.")
@click.option(
    "--machines", default=0, type=click.IntRange(0, 256), help="How many other machines join; needs --listen."
)
@click.option("--listen", callback=_parsed(_address), help="HOST:PORT where other machines reach this one.")
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1, 100), help="Repeat the test phase.")
@click.option("--find-max", "searching", is_flag=True, help="Search for the highest rate that meets the goals.")
@click.option("--verify", is_flag=True, help="Read everything back afterwards: acknowledged = stored.")
@click.option(
    "--require",
    "requirements",
    multiple=True,
    callback=_parsed(Requirement),
    help="Fail unless it is met: 'writes.p99<100ms', 'reads.throughput>=99%'. Repeatable.",
)
@click.option("--json", "json_file", type=_FILE, help="Write the result here.")
@click.option("--html", "html_file", type=_FILE, help="Write a page with plots here, in one file.")
@click.option("--junit", "junit_file", type=_FILE, help="Write the verdict here as JUnit XML, for CI.")
@click.pass_context
def perftest(
    context: click.Context,
    *,
    writes: int,
    reads: int,
    duration: int,
    workers: int,
    url: str | None,
    running: bool,
    keep: bool,
    stack_name: str | None,
    ramp: int,
    spike: float | None,
    soak: bool,
    stages: tuple[Stage, ...] | None,
    mix: dict[str, int] | None,
    message_size: Size,
    chats: int,
    zipf: float,
    members: int,
    seed: int,
    processes: int,
    machines: int,
    listen: tuple[str, int] | None,
    runs: int,
    searching: bool,
    verify: bool,
    requirements: list[Requirement],
    json_file: Path | None,
    html_file: Path | None,
    junit_file: Path | None,
) -> None:
    """Load a Hubbub service and say whether it keeps up: exit status 0 passed, 1 failed, 2 bad usage, 3 not reached."""
    if context.invoked_subcommand is not None:
        return
    if mix == MATTERMOST:
        writes, reads = _in_proportion(context, mix, writes, reads)
    if writes + reads == 0:
        raise click.UsageError("--writes and --reads can't both be 0")
    if sum((url is not None, running, stack_name is not None)) > 1:
        raise click.UsageError("--url, --running and --stack exclude each other: give one of them")
    if keep and not running and url is None:
        raise click.UsageError("--keep goes with --url or --running: a private service is deleted as a whole")
    if bool(machines) != (listen is not None):
        raise click.UsageError("--machines and --listen go together")
    if machines and url is None:
        raise click.UsageError("--machines needs --url, where the others reach the service")
    shape = _shape(duration, ramp, spike, soak, stages)
    if max(max(stage.start, stage.end) for stage in shape) * (writes + reads) > _MOST_A_SECOND:
        raise click.UsageError(f"a test sends at most {_MOST_A_SECOND:,} requests a second: ask for fewer")
    if sum(stage.seconds for stage in shape) > _LONGEST_S:
        raise click.UsageError(f"a test takes at most {_LONGEST_S:,} seconds: ask for fewer")
    given = {"--json": json_file, "--html": html_file, "--junit": junit_file}
    files = {option: file for option, file in given.items() if file is not None}
    try:
        try_out(files)
    except Unwritable as error:
        click.echo(f"perftest: {error}", err=True)
        sys.exit(BAD_USAGE)
    at = RUNNING if running else url
    options = Options(
        writes=writes,
        reads=reads,
        workers=workers,
        stages=shape,
        mix=_whole_mix(mix, writes, reads),
        size=message_size,
        chats=chats,
        members=members,
        zipf=zipf,
        seed=seed,
        processes=processes,
        machines=machines,
        listen=listen or ("127.0.0.1", 0),
        runs=runs,
        verify=verify,
        requirements=requirements,
    )
    if searching:
        if soak or stages or spike or ramp or runs > 1 or verify or html_file or junit_file:
            raise click.UsageError("--find-max tries rates of its own: leave out shapes, --runs and other reports")
        usual = context.get_parameter_source("duration") == click.core.ParameterSource.DEFAULT
        length = TRIAL_S if usual else duration
        with service(at, stack_name, keep=keep) as tested:
            measured = about()
            found = run(search(options, tested, length))
            _save(files, {"--json": _line(msgspec.to_builtins(measured) | msgspec.to_builtins(found))})
        sys.exit(0 if found.factor else FAILED)
    with service(at, stack_name, keep=keep) as tested:
        measured = about()
        results = run(run_test(options, tested, view()))
        shown, judged = _median(results), verdict(results)
        _show(results, shown, judged, measured)
        content = as_json(shown, options.described(tested.url), measured)
        content["verdict"] = msgspec.to_builtins(judged)
        content["pass"] = judged.result == "pass"
        content["runs"] = [as_json(each, {}) for each in results] if len(results) > 1 else []
        html = page(content, options.plan).encode() if html_file else b""
        _save(files, {"--json": _line(content), "--html": html, "--junit": junit(results)})
    sys.exit(0 if judged.result == "pass" else FAILED)


def _in_proportion(context: click.Context, mix: dict[str, int], writes: int, reads: int) -> tuple[int, int]:
    """Rates in the proportion of the mix, as far as they were not given: as many requests as usual in all, or as many
    of the kind that was not given as go with the other.
    """
    default = click.core.ParameterSource.DEFAULT
    given = [context.get_parameter_source(name) != default for name in ("writes", "reads")]
    of_writes, of_reads = weight_of(mix, WRITES), weight_of(mix, READS)
    if all(given):
        return writes, reads
    if given[0]:
        return writes, round(writes * of_reads / of_writes)
    if not given[1]:
        reads = round((writes + reads) * of_reads / (of_writes + of_reads))
    return round(reads * of_writes / of_reads), reads


def _show(results: list[Result], shown: Result, judged: Verdict, measured: About) -> None:
    if len(results) > 1:
        click.echo(_overview(results))
    click.echo(report(shown))
    colour = "red" if judged.result != "pass" else "yellow" if judged.missed else "green"
    click.echo(judged.text if os.environ.get("NO_COLOR") else click.style(judged.text, fg=colour))
    for line in [f"Rule: {rule()}", *notes(shown), f"Measured {measured.text}"]:
        click.echo(line)


def _line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _save(files: dict[str, Path], contents: dict[str, bytes]) -> None:
    """Write each file that was asked for; those that can't be written don't keep the others from it."""
    failed = False
    for option, file in files.items():
        try:
            write(option, file, contents[option])
        except Unwritable as error:
            click.echo(f"perftest: {error}", err=True)
            failed = True
    if failed:
        sys.exit(BAD_USAGE)


def _shape(
    duration: int, ramp: int, factor: float | None, soak: bool, stages: tuple[Stage, ...] | None
) -> tuple[Stage, ...]:
    if sum((factor is not None, soak, stages is not None)) > 1:
        raise click.UsageError("--spike, --soak and --stages exclude each other: give one of them")
    if soak:
        shape: tuple[Stage, ...] = (Stage(_SOAK_S, _SOAK_LEVEL, _SOAK_LEVEL),)
    elif stages is not None:
        shape = stages
    else:
        shape = steady(duration) if factor is None else spike(duration, factor)
    return (Stage(ramp, 0.0, shape[0].start), *shape) if ramp else shape


def _whole_mix(mix: dict[str, int] | None, writes: int, reads: int) -> dict[str, int]:
    """Both kinds have a route when they have a rate; a kind that is not spoken of keeps the usual one."""
    chosen = dict(mix or {})
    for kind, rate, name in ((WRITES, writes, "--writes"), (READS, reads, "--reads")):
        named = [ROUTES[route] for route in kind if ROUTES[route] in chosen]
        if not named:
            chosen |= {ROUTES[route]: DEFAULT_MIX[ROUTES[route]] for route in kind if ROUTES[route] in DEFAULT_MIX}
        elif rate and not any(chosen[route] for route in named):
            raise click.UsageError(f"--mix leaves nothing to send for {name}: give one of {', '.join(named)} a weight")
    return chosen


def _median(results: list[Result]) -> Result:
    """The run in the middle by the slower side's P99; a run that failed to be verified is shown before any."""
    faulty = [each for each in results if each.findings is not None and each.findings.faults]
    ordered = sorted(results, key=lambda each: max(each.writes.latency.p99, each.reads.latency.p99))
    return faulty[0] if faulty else ordered[(len(ordered) - 1) // 2]


def _overview(results: list[Result]) -> str:
    lines = ["Runs (the report below is of the one with the median P99):"]
    for number, each in enumerate(results, 1):
        lines.append(
            f"  {number}: {each.writes.throughput:.0f} writes/sec P99 {each.writes.latency.p99:.1f}ms, "
            f"{each.reads.throughput:.0f} reads/sec P99 {each.reads.latency.p99:.1f}ms, "
            f"{each.writes.failed + each.reads.failed} failed {'✓' if each.passed else '✗'}"
        )
    return "\n".join([*lines, ""])


@perftest.command(short_help="Say whether the result B is worse than the result A.")
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--tolerance",
    default=5.0,
    show_default=True,
    type=_FloatRange(0),
    help="Difference in percent that is allowed.",
)
def compare(a: Path, b: Path, tolerance: float) -> None:
    """Say whether B is worse than A, both results of --json (best of --runs 5) or folders of them; then exit with 1."""
    try:
        comparison = compared(read(a), read(b), tolerance / 100)
    except Incomparable as error:
        raise click.UsageError(str(error)) from error
    click.echo(as_text(comparison, tolerance / 100))
    sys.exit(FAILED if comparison.worse else 0)


@perftest.command(short_help="Generate load for a test that runs on another machine.")
@click.argument("coordinator", callback=_parsed(_address))
@click.option("--key", envvar=KEY_VARIABLE, required=True, help=f"As the coordinator prints it, or {KEY_VARIABLE}.")
def join(coordinator: tuple[str, int], key: str) -> None:
    """Generate load for a test that runs on another machine, at HOST:PORT."""
    try:
        uvloop.run(generate(*coordinator, key))
    except Unconnected as error:
        click.echo(f"perftest: {error}", err=True)
        sys.exit(UNREACHABLE)
    except KeyboardInterrupt:
        sys.exit(130)
