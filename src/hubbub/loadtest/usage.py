"""Resource use of the service during a run: CPU and memory of its processes on this machine, and its metrics."""

from __future__ import annotations

import asyncio
import time
from math import floor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from hubbub.loadtest.gauges import Gauges, Served
from hubbub.loadtest.verdict import Usage

_SHARED_EVERY = 10
_LOCAL = ("127.0.0.1", "localhost", "::1")


class Meter:
    """Measures a process, with its children, from when it is made.

    Peak memory is the kernel's high-water mark (VmHWM) of each since it began, summed, less what they share: a process
    that was forked has much of its parent's memory, which is there once.
    """

    def __init__(self, pid: int) -> None:
        process = psutil.Process(pid)
        self._processes = [process, *process.children(recursive=True)]
        self._since = self._sampled = time.monotonic()
        self._cpu = self._cpu_sampled = self.cpu_s()
        self._shared = 0
        self._samples = 0

    def cpu_s(self) -> float:
        """Seconds of CPU of all of them since they began."""
        times = [process.cpu_times() for process in self._processes]
        return float(sum(each.user + each.system for each in times))

    def sample(self) -> dict[str, float] | None:
        """Cores since the last sample and resident bytes now; None when the process has gone.

        What the processes share changes little after they began, and the kernel walks through all their memory to find
        it: it is that of the last _SHARED_EVERY samples.
        """
        try:
            cpu_s, now = self.cpu_s(), time.monotonic()
            if self._samples % _SHARED_EVERY == 0:
                self._shared = sum(_shared_bytes(process.pid) for process in self._processes)
            self._samples += 1
            resident = sum(process.memory_info().rss for process in self._processes) - self._shared
        except (psutil.NoSuchProcess, OSError):
            return None
        cores = (cpu_s - self._cpu_sampled) / max(now - self._sampled, 1e-9)
        self._cpu_sampled, self._sampled = cpu_s, now
        return {"cores": cores, "bytes": float(resident)}

    def read(self) -> Usage | None:
        """Of the whole time; None when the process has gone."""
        try:
            cores = (self.cpu_s() - self._cpu) / (time.monotonic() - self._since)
            peaks = [_peak_bytes(process.pid) for process in self._processes]
            shared = [_shared_bytes(process.pid) for process in self._processes]
        except (psutil.NoSuchProcess, OSError):
            return None
        return Usage(cores, sum(peaks) - sum(shared))


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _shared_bytes(pid: int) -> int:
    """Of the process's memory, what belongs to the others that share it, when each has an equal part (Rss - Pss)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
    return sizes["Rss:"] - sizes["Pss:"]


def listener(url: str) -> int | None:
    """The process on this machine that listens at a URL, as far as this user may see it."""
    parts = urlsplit(url)
    if parts.hostname not in _LOCAL:
        return None
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    pids = (each.pid for each in connections if each.status == psutil.CONN_LISTEN and each.laddr[1:2] == (port,))
    return next((pid for pid in pids if pid), None)


class Watch:
    """Samples the service every ``interval`` seconds of a run. ``samples`` has one entry for each, in order; an answer
    of the service that takes longer leaves some out.
    """

    def __init__(self, url: str, pids: dict[str, int], interval: int) -> None:
        self._gauges = Gauges(url)
        self._meters = {name: Meter(pid) for name, pid in pids.items() if psutil.pid_exists(pid)}
        self._interval = interval
        self.samples: list[dict[str, Any]] = []

    async def follow(self, started: float) -> None:
        """Until cancelled; ``started`` is the run's begin on time.monotonic()."""
        second = 0
        while True:
            await asyncio.sleep(max(started + second - time.monotonic(), 0))
            parts = {name: sample for name, meter in self._meters.items() if (sample := meter.sample()) is not None}
            metrics = await self._gauges.read()
            if second:  # the one at 0 only sets the marks
                self.samples.append({"second": second, "parts": parts, "metrics": metrics})
            passed = time.monotonic() - started
            second = max(second, floor(passed / self._interval) * self._interval) + self._interval

    async def finish(self) -> None:
        """Read the service's metrics one last time."""
        await self._gauges.read()
        self._gauges.close()

    @property
    def unusable(self) -> str | None:
        """Why the service's /metrics is not read, if so."""
        return self._gauges.unusable

    def served(self) -> tuple[Served | None, Served | None]:
        return self._gauges.served()

    def usages(self) -> dict[str, Usage]:
        return {name: usage for name, meter in self._meters.items() if (usage := meter.read()) is not None}
