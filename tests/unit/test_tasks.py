"""Rule 10 of docs/decisions/0007-cluster-protocol.md: nothing dies silently."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import asyncio
from hubbub.cluster.tasks import keep

async def end():
    {how}

async def main():
    task = keep(end(), "a test")
    await asyncio.sleep(0)
    {then}
    await asyncio.sleep(0.1)
    print("lives on")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "then", "lives"),
    [
        ("raise ValueError('unexpected')", "pass", False),
        ("return", "pass", True),
        ("await asyncio.sleep(60)", "task.cancel()", True),
    ],
    ids=["an error", "an end", "cancelled"],
)
def test_a_failed_task_ends_its_process(how: str, then: str, lives: bool) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(how=how, then=then)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == ((0, "lives on\n") if lives else (1, ""))
    assert ("The task of a test has failed; the process ends." in ended.stderr) != lives
