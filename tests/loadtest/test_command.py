"""The perftest command as a script sees it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Service


def perftest(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubbub", "perftest", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_run_passes_reports_and_leaves_its_result(embedded: Service, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    options = ("--url", embedded.url, "--writes", "50", "--reads", "100", "--duration", "6", "--workers", "5")
    done = perftest(*options, "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\[5s\] Writes: \d+ \(\d+/s\) \| Reads: \d+ \(\d+/s\)$", done.stdout, re.MULTILINE)
    assert "  Overall: ✓ PASS\n" in done.stdout
    content = json.loads(file.read_text())
    assert (content["writes"]["total"], content["reads"]["total"]) == (300, 600)
    assert content["writes"]["failed"] == content["reads"]["failed"] == 0
    again = perftest("--url", embedded.url, "--writes", "10", "--reads", "0", "--duration", "1", "--workers", "7")
    assert again.returncode == 0, again.stdout + again.stderr


def test_an_impossible_target_fails(embedded: Service) -> None:
    options = ("--writes", "400000", "--reads", "10", "--duration", "1", "--workers", "5")
    done = perftest("--url", embedded.url, *options)
    assert done.returncode == 1
    assert "  Overall: ✗ FAIL\n" in done.stdout
    assert "Unsent:" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--nonsense",), ("--writes", "x"), ("--workers", "0"), ("--url", "ftp://x"), ("--writes", "0", "--reads", "0")],
)
def test_bad_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = perftest(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_no_service_is_3() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = perftest("--url", f"http://127.0.0.1:{unused.getsockname()[1]}", "--duration", "1")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_help_is_0() -> None:
    done = perftest("--help")
    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--writes", "--reads", "--duration", "--workers"))
