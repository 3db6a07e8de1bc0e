"""The number of rounds of random faults, the check of a run, and the table that pytest prints at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.history.check import faults
from tests.history.workload import Workload

Stored = Callable[[str], list[tuple[int, str]]]

_FEW = 8
_rows = pytest.StashKey[list[str]]()


@pytest.fixture
def fault_rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fault-rounds") or _FEW)


@pytest.fixture
def judge(
    request: pytest.FixtureRequest, fault_seed: int, tmp_path: Path
) -> Callable[[Workload, Counter[str], Stored], Awaitable[None]]:
    """Return a function that ends a run: it saves and checks the history, and adds a row to the table that pytest
    prints at the end. Its last argument reads a chat from the database.
    """

    async def end(workload: Workload, done: Counter[str], stored: Stored) -> None:
        await workload.finish(stored)
        history = tmp_path / "history.jsonl"
        workload.history.save(history)
        found = faults(workload.history)
        tried = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
        operations = workload.history.operations
        answered = sum(each.done for each in operations)
        lagging = sum(each.lag for each in operations)
        request.config.stash.setdefault(_rows, []).append(
            f"| {request.node.name} | {fault_seed} | {tried} | {len(operations)} | {answered}"
            f" | {workload.acknowledged} | {lagging} | {len(found)} |"
        )
        assert not found, f"seed {fault_seed}, {history}: {found[:10]}"

    return end


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_rows, [])
    if rows:
        terminalreporter.section("faults")
        columns = (
            "test",
            "seed",
            "faults",
            "requests",
            "answered",
            "messages acknowledged",
            "reads that lagged",
            "broken promises",
        )
        for row in (f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows):
            terminalreporter.line(row)
