"""The output while a test runs: a live table on a terminal, the contract's lines elsewhere."""

from __future__ import annotations

from typing import Any, Protocol

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hubbub.loadtest.plan import PROGRESS_S, Plan
from hubbub.loadtest.report import behind, progress
from hubbub.loadtest.run import SIDES, Moment, Run, SideMoment
from hubbub.loadtest.verdict import GOOD_MS

_BARS = "▁▂▃▄▅▆▇█"


class View(Protocol):
    def phase(self, text: str) -> None: ...
    def begin(self, plan: Plan) -> None: ...
    def second(self, run: Run, moment: Moment, sample: dict[str, Any] | None) -> None: ...
    def end(self) -> None: ...


class Quiet:
    """Shows nothing, for runs that are one step of a search."""

    def phase(self, text: str) -> None: ...
    def begin(self, plan: Plan) -> None: ...
    def second(self, run: Run, moment: Moment, sample: dict[str, Any] | None) -> None: ...
    def end(self) -> None: ...


class Lines:
    """A line every five seconds, for a file or a CI log."""

    def __init__(self) -> None:
        self._shown = (0.0, 0, 0)

    def phase(self, text: str) -> None:
        click.echo(text)

    def begin(self, plan: Plan) -> None:
        self._shown = (0.0, 0, 0)

    def second(self, run: Run, moment: Moment, sample: dict[str, Any] | None) -> None:
        before, writes_before, reads_before = self._shown
        last = moment.second >= run.plan.seconds
        if moment.second - before < PROGRESS_S and not last:
            return
        seconds = min(float(moment.second), run.plan.seconds)
        step = seconds - before
        writes, reads = (recorder.total for recorder in run.sides)
        click.echo(progress(seconds, writes, reads, (writes - writes_before) / step, (reads - reads_before) / step))
        late = behind(list(run.recent)[-max(round(step), 1) :])
        if late:
            click.echo(late)
        self._shown = (seconds, writes, reads)

    def end(self) -> None:
        click.echo("")


class Screen:
    """A table that is redrawn each second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def phase(self, text: str) -> None:
        click.echo(text)

    def begin(self, plan: Plan) -> None:
        self._live = Live(Text("starting"), console=self._console, auto_refresh=False)
        self._live.start()

    def second(self, run: Run, moment: Moment, sample: dict[str, Any] | None) -> None:
        if self._live is not None:
            self._live.update(picture(run, moment, sample), refresh=True)

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        click.echo("")


def picture(run: Run, moment: Moment, sample: dict[str, Any] | None) -> Group:
    """The live view of one second."""
    passed, whole = min(float(moment.second), run.plan.seconds), run.plan.seconds
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=whole, completed=passed, width=46), Text(f"{passed:.0f} of {whole:.0f} s"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for column in ("now /s", "mean /s", "target", "total", "failed", "P50 ms", "P95 ms", "P99 ms", "max ms"):
        table.add_column(column, justify="right")
    for name, recorder, target in zip(SIDES, run.sides, run.plan.targets, strict=True):
        side: SideMoment = getattr(moment, name)
        good_p95, good_p99 = GOOD_MS[name]
        table.add_row(
            Text(name, style="bold"),
            f"{side.rate:,.0f}",
            f"{recorder.total / passed if passed else 0:,.0f}",
            f"{target:,.0f}",
            f"{recorder.total:,}",
            Text(f"{recorder.failed:,}", style="bold red" if recorder.failed else ""),
            f"{side.p50:,.1f}",
            Text(f"{side.p95:,.1f}", style="green" if side.p95 < good_p95 else "yellow"),
            Text(f"{side.p99:,.1f}", style="green" if side.p99 < good_p99 else "yellow"),
            f"{side.max:,.1f}",
        )
    return Group(bar, Text(""), table, Text(""), *_history(run), _state(run, moment, sample), *_failures(run))


def _history(run: Run) -> list[Text]:
    """Throughput and P99 of the last minute as small bars, each from 0 to its own highest."""
    recent = run.recent
    rates = [moment.writes.rate + moment.reads.rate for moment in recent]
    slowest = [max(moment.writes.p99, moment.reads.p99) for moment in recent]
    return [
        Text.assemble((f"{name:<12}", "dim"), (bars(values), "cyan"), (f"  up to {max(values):,.0f} {unit}", "dim"))
        for name, values, unit in (("requests", rates, "/s"), ("worst P99", slowest, "ms"))
    ]


def bars(values: list[float]) -> str:
    top = max(values, default=0.0)
    return "".join(_BARS[min(int(value / top * len(_BARS)), len(_BARS) - 1)] if top else _BARS[0] for value in values)


def _state(run: Run, moment: Moment, sample: dict[str, Any] | None) -> Text:
    late = sum(sum(recorder.late) for recorder in run.sides)
    words = [f"sent late {late:,}", f"waiting {moment.waiting:,}", f"generator {sum(moment.cores):.2f} cores"]
    for name, part in (sample or {}).get("parts", {}).items():
        words.append(f"{name} {part['cores']:.2f} cores {part['bytes'] / 1e6:.0f} MB")
    return Text(" · ".join(words), style="dim")


def _failures(run: Run) -> list[Text]:
    return [
        Text(f"{name} failed with {kind}: {count:,}", style="red")
        for name, recorder in zip(SIDES, run.sides, strict=True)
        for kind, count in recorder.failures.most_common(3)
    ]


def view() -> View:
    console = Console()
    return Screen(console) if console.is_terminal and not console.is_dumb_terminal else Lines()
