"""CPU and memory of a process on this machine, over a stretch of time."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from hubbub.loadtest.verdict import Usage


class Meter:
    """Measures from when it is made; peak memory is the kernel's high-water mark (VmHWM) since the process began."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._since = time.monotonic()
        self._cpu = self._cpu_s()

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def read(self) -> Usage | None:
        """None when the process has gone."""
        try:
            cores = (self._cpu_s() - self._cpu) / (time.monotonic() - self._since)
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except (psutil.NoSuchProcess, OSError):
            return None
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return Usage(cores, int(peak.split()[1]) * 1024)
