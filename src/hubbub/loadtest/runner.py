"""Runs a phase of the test: sends every request when it is due, whatever the service does (an open model).

Latency counts from when a request was due, so a service that stalls is charged for all the requests that it kept
waiting and not only for the ones it held (coordinated omission). A worker's connection carries one request at a time;
what falls due meanwhile waits, and its waiting is part of its latency.

What is due is sent about once a millisecond, all together: sending after every answer as well would show latencies
that are half a millisecond lower, and cost both sides a third more CPU in wake-ups.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from hubbub.loadtest.plan import Plan, Schedule
from hubbub.loadtest.recorder import Recorder
from hubbub.loadtest.worker import Worker, clock

TIMEOUT_S = 10.0
LATE_S = 0.1
_TICK_S = 0.001


class Runner:
    """``recorders`` has the writes' and the reads' figures of the phase that runs, or ran last."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._plan = plan
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.workers: list[Worker] = []
        self.recorders = (Recorder(), Recorder())
        self._schedule = Schedule(plan, 0)
        self._start = 0.0
        self._number = 0
        self._look_at = 0.0
        self._last_answer = 0.0
        self._running = False
        self._closed = False
        self._reconnecting: set[asyncio.Task[None]] = set()

    async def connect(self, worker: Worker) -> None:
        await asyncio.get_running_loop().create_connection(lambda: worker, self._host, self._port, ssl=self._tls)

    async def run(self, duration: float, progress: Callable[[float], None], interval: float) -> float:
        """One phase. ``progress`` is called every ``interval`` seconds with the seconds passed.

        Returns:
            The seconds from the start to the last answer, at least ``duration``.
        """
        self.recorders = (Recorder(), Recorder())
        self._schedule = Schedule(self._plan, duration)
        for index, worker in enumerate(self.workers):
            worker.next = index
            worker.behind = 0
        self._number = 0
        self._start = clock()
        self._running = True
        shown = interval
        while (passed := clock() - self._start) < duration:
            self._pump(clock())
            self._expire()
            if passed >= shown:
                progress(shown)
                shown += interval
            await asyncio.sleep(_TICK_S)
        self._pump(clock())
        self._running = False
        if shown <= duration:
            progress(duration)
        self._count_unsent()
        return await self._drain(duration)

    async def _drain(self, duration: float) -> float:
        """What is under way may still be answered, within its time."""
        while any(worker.busy for worker in self.workers):
            self._expire()
            await asyncio.sleep(_TICK_S)
        return max(duration, self._last_answer - self._start)

    def _count_unsent(self) -> None:
        """Requests that were due within the phase and never sent: their worker's connection never got to them."""
        for number in range(self._number, self._schedule.total):
            self.recorders[self._schedule.kind(number)].unsent += 1
        for worker in self.workers:
            for turn in range(worker.behind):
                number = worker.next + turn * self._schedule.workers
                self.recorders[self._schedule.kind(number)].unsent += 1
            worker.behind = 0

    def _expire(self) -> None:
        """Give up on what takes longer than TIMEOUT_S."""
        now = clock()
        if now < self._look_at:
            return
        self._look_at = now + 0.1
        for worker in self.workers:
            if worker.busy and now - worker.sent_at > TIMEOUT_S:
                worker.give_up()

    def _pump(self, now: float) -> None:
        """Send what has fallen due by ``now``."""
        schedule = self._schedule
        due_to = min(int((now - self._start) * schedule.rate) + 1, schedule.total)
        number = self._number
        while number < due_to:
            worker = self.workers[number % schedule.workers]
            if worker.busy or worker.behind or not worker.connected:
                worker.behind += 1
            else:
                worker.next = number + schedule.workers
                worker.send(schedule.kind(number), self._start + schedule.due(number))
            number += 1
            self._number = number

    def catch_up(self, worker: Worker) -> None:
        """Send the first of the requests that the worker is behind with."""
        if not self._running:
            return
        schedule = self._schedule
        number = worker.next
        worker.behind -= 1
        worker.next = number + schedule.workers
        worker.send(schedule.kind(number), self._start + schedule.due(number))

    def answered(self, kind: int, latency_us: int, due: float, sent_at: float) -> None:
        recorder = self.recorders[kind]
        self._last_answer = due + latency_us / 1_000_000
        recorder.record(latency_us)
        if sent_at - due > LATE_S:
            recorder.late += 1

    def failed(self, kind: int, why: str) -> None:
        self.recorders[kind].fail(why)

    def reconnect(self, worker: Worker, delay: float) -> None:
        """Open the worker's connection again, as often as it takes."""
        if self._closed:
            return

        async def again() -> None:
            while not self._closed:
                await asyncio.sleep(delay)
                try:
                    await worker.connect()
                except (TimeoutError, OSError):
                    if worker.behind and self._running:
                        self._refused(worker)
                    continue
                if worker.behind:
                    self.catch_up(worker)
                return

        task = asyncio.get_running_loop().create_task(again())
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnecting.discard)

    def _refused(self, worker: Worker) -> None:
        """Nobody took the connection for the first request that waits: that request has failed."""
        self.failed(self._schedule.kind(worker.next), "connection refused")
        worker.behind -= 1
        worker.next += self._schedule.workers

    async def close(self) -> None:
        self._closed = True
        for worker in self.workers:
            worker.close()
        for task in list(self._reconnecting):
            task.cancel()
        await asyncio.sleep(0)
