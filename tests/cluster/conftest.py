"""Print a table of the faults at the end of a run."""

from __future__ import annotations

import pytest

rows = pytest.StashKey[dict[str, list[float]]]()

COLUMNS = (
    "rounds",
    "acknowledged",
    "refused",
    "client errors",
    "lost",
    "wrong",
    "repeated",
    "out of order",
    "stale reads",
    "processes ended",
    "seconds until ready",
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash.get(rows, {})
    if table:
        terminalreporter.section("faults to a cluster")
        terminalreporter.line(f"| fault | {' | '.join(COLUMNS)} |")
        terminalreporter.line("| --- " * (len(COLUMNS) + 1) + "|")
        for name, figures in table.items():
            terminalreporter.line(f"| {name} | {' | '.join(f'{figure:g}' for figure in figures)} |")
