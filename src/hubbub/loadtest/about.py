"""The date, version and machine of a result."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path

import msgspec
import psutil

from hubbub import __version__

_GIT_S = 5.0


class Machine(msgspec.Struct, frozen=True):
    """``memory_bytes`` is all that the machine has."""

    cores: int
    cpu: str
    memory_bytes: int
    system: str
    python: str


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """``date`` is when the test began, in ISO 8601 and UTC; ``version`` and ``commit`` are the load tester's own, and
    so those of a service that it started. A ``commit`` ends in ``-dirty`` where tracked files differ from it.
    """

    date: str
    version: str
    machine: Machine
    commit: str | None = None

    @property
    def text(self) -> str:
        machine = self.machine
        return (
            f"{self.date}, Hubbub {self.version}{f' ({_short(self.commit)})' if self.commit else ''}, "
            f"{machine.cores} core{'s' if machine.cores > 1 else ''} of {machine.cpu}, "
            f"{machine.memory_bytes / 1e9:.1f} GB of memory, Python {machine.python}"
        )


def _short(commit: str) -> str:
    name, dash, dirty = commit.partition("-")
    return name[:10] + dash + dirty


def about() -> About:
    """The date, version and machine of this test."""
    return About(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        version=__version__,
        machine=Machine(
            cores=os.cpu_count() or 1,
            cpu=_cpu(),
            memory_bytes=psutil.virtual_memory().total,
            system=platform.platform(),
            python=platform.python_version(),
        ),
        commit=_of_checkout(Path(__file__).parents[3]) or _of_installation(),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "unknown"


def _of_checkout(folder: Path) -> str | None:
    """The commit that is checked out in ``folder``; None where it is no checkout or there is no git."""
    if not (folder / ".git").exists():
        return None
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(folder),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _of_installation() -> str | None:
    """The commit that pip installed from, if it is recorded (PEP 610)."""
    text = distribution("hubbub").read_text("direct_url.json")
    try:
        commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    except (ValueError, AttributeError):
        return None
    return str(commit) if commit else None
