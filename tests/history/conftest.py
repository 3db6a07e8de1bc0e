"""Seeds and lengths of the fault runs, and the table that the run ends with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.history.workload import Workload

_FEW = 8
_rows = pytest.StashKey[list[str]]()


@pytest.fixture
def fault_rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fault-rounds") or _FEW)


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--fault-seed")
    return int(given) if given is not None else random.SystemRandom().randrange(2**32)


@pytest.fixture
def faults_table(
    request: pytest.FixtureRequest, fault_seed: int
) -> Callable[[Workload, Counter[str], list[str]], None]:
    """Adds a row for each run to the table that pytest prints at the end."""

    def add(workload: Workload, done: Counter[str], found: list[str]) -> None:
        tried = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
        operations = workload.history.operations
        answered = sum(each.done for each in operations)
        request.config.stash.setdefault(_rows, []).append(
            f"| {request.node.name} | {fault_seed} | {tried} | {len(operations)} | {answered}"
            f" | {workload.acknowledged} | {len(found)} |"
        )

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_rows, [])
    if rows:
        terminalreporter.section("faults")
        columns = ("test", "seed", "faults", "requests", "answered", "messages acknowledged", "broken promises")
        for row in (f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows):
            terminalreporter.line(row)
