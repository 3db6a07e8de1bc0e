"""CPU and memory of a process on this machine, over a stretch of time."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from hubbub.loadtest.verdict import Usage


class Meter:
    """Measures a process, with its children where asked, from when it is made.

    Peak memory is the kernel's high-water mark (VmHWM) of each since it began, summed.
    """

    def __init__(self, pid: int, *, children: bool = True) -> None:
        process = psutil.Process(pid)
        self._processes = [process, *(process.children(recursive=True) if children else [])]
        self._since = time.monotonic()
        self._cpu = self._cpu_s()

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return float(sum(each.user + each.system for each in times))

    def read(self) -> Usage | None:
        """None when the process has gone."""
        try:
            cores = (self._cpu_s() - self._cpu) / (time.monotonic() - self._since)
            peaks = [_peak_bytes(process.pid) for process in self._processes]
        except (psutil.NoSuchProcess, OSError):
            return None
        return Usage(cores, sum(peaks))


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
