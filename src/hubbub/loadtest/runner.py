"""Runs a phase of the test: sends every request when it is due, whatever the service does (an open model).

Latency counts from when a request was due, so a service that stalls is charged for all the requests that it kept
waiting and not only for the ones it held (coordinated omission). A worker's connection carries one request at a time;
a request that becomes due before the answer waits, and the wait is part of its latency.

What is due is sent about once a millisecond, all together: sending after every answer as well would show latencies
that are half a millisecond lower, and cost both sides a third more CPU in wake-ups.

A request that is sent over LATE_S after it was due is late for one of three reasons (summary.REASONS):

- generator: its connection was free, or this process did not run for most of the wait;
- server: it fell due while the service kept an earlier request of its connection waiting for over LATE_S or the
  connection was lost, or before that;
- connection: the requests before it were answered sooner, each, but they were too many for one connection.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from math import ceil
from urllib.parse import urlsplit

from hubbub.loadtest.plan import Plan, Schedule
from hubbub.loadtest.summary import CONNECTION, GENERATOR, SERVER, SecondSummary, SummaryBuilder
from hubbub.loadtest.worker import Worker, clock

TIMEOUT_S = 10.0
LATE_S = 0.1
_TICK_S = 0.001


class Runner:
    """``workers`` share this generator's requests. ``report`` is called about once a second with what happened in it,
    and once more at the end of each phase.
    """

    def __init__(self, url: str, report: Callable[[SecondSummary], None]) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._report = report
        self.workers: list[Worker] = []
        self._summary = SummaryBuilder()
        self._schedule = Schedule(Plan(1, 1, 1, ()))
        self._start = 0.0
        self._sent_to = 0
        self._waiting = 0
        self._second = 0
        self._reported_at = 0.0
        self._cpu = 0.0
        self._last_tick = 0.0
        self._stall = (0.0, 0.0)  # from when to when this process did not run, the last time that it was over LATE_S
        self._look_at = 0.0
        self._last_answer = 0.0
        self._running = False
        self._closed = False
        self._reconnecting: set[asyncio.Task[None]] = set()

    async def connect(self, worker: Worker) -> None:
        await asyncio.get_running_loop().create_connection(lambda: worker, self._host, self._port, ssl=self._tls)

    async def run(self, plan: Plan, index: int, count: int) -> tuple[float, tuple[int, int]]:
        """One phase of generator ``index`` of ``count``.

        Returns:
            The seconds from the start to the last answer, at least the plan's, and the writes and reads never sent.
        """
        self._summary = SummaryBuilder()
        self._schedule = Schedule(plan, index, count)
        for worker in self.workers:
            worker.turn = worker.behind = 0
            worker.slow_until = 0.0
        self._sent_to = self._waiting = self._second = 0
        self._cpu = time.process_time()
        self._start = self._reported_at = self._last_tick = self._last_answer = clock()
        self._running = True
        last = ceil(plan.seconds) - 1
        while (passed := clock() - self._start) < plan.seconds:
            self._pump()
            self._expire()
            if passed >= self._second + 1 and self._second < last:
                self._tell()
            await asyncio.sleep(_TICK_S)
        self._pump()
        self._running = False
        unsent = self._unsent()
        while self._second < last:  # a stall may have kept them; every generator reports as often as the others
            self._tell()
        while any(worker.busy for worker in self.workers):  # they may still be answered, within their time
            self._expire()
            await asyncio.sleep(_TICK_S)
        self._tell()
        return max(plan.seconds, self._last_answer - self._start), unsent

    def _tell(self) -> None:
        now, cpu = clock(), time.process_time()
        second = self._summary.take(
            self._second, waiting=self._waiting, cpu_s=cpu - self._cpu, span_s=now - self._reported_at
        )
        self._cpu, self._reported_at = cpu, now
        self._second += 1
        self._report(second)

    def _unsent(self) -> tuple[int, int]:
        """Writes and reads that were due within the phase and never sent: their worker never got to them."""
        unsent = [0, 0]
        for worker in self.workers:
            for turn in range(worker.turn, worker.turn + worker.behind):
                unsent[self._schedule.kind(worker.number, turn)] += 1
            worker.behind = 0
        return unsent[0], unsent[1]

    def _expire(self) -> None:
        """Give up on what takes longer than TIMEOUT_S."""
        now = clock()
        if now < self._look_at:
            return
        self._look_at = now + 0.1
        for worker in self.workers:
            if worker.busy and now - worker.sent_at > TIMEOUT_S:
                worker.give_up()

    def _pump(self) -> None:
        """Send what has fallen due."""
        now = clock()
        away_s = now - self._last_tick
        self._summary.lag_s = max(self._summary.lag_s, away_s - _TICK_S)
        if away_s > LATE_S:
            self._stall = (self._last_tick, now)
        self._last_tick = now
        schedule, summary = self._schedule, self._summary
        due_to = schedule.due_by(now - self._start)
        for number in range(self._sent_to, due_to):
            worker = self.workers[number % schedule.mine]
            if worker.busy or worker.behind or not worker.connected:
                worker.behind += 1
                self._waiting += 1
                continue
            turn = worker.turn
            worker.turn += 1
            kind = schedule.kind(worker.number, turn)
            due = self._start + schedule.due(worker.number, turn)
            if worker.send(kind, due) - due > LATE_S:  # nothing but this process kept it from being sent
                summary.late[kind][GENERATOR] += 1
        self._sent_to = max(self._sent_to, due_to)

    def catch_up(self, worker: Worker) -> None:
        """Send the first of the requests that the worker is behind with."""
        if not self._running:
            return
        turn = self._next(worker)
        kind = self._schedule.kind(worker.number, turn)
        due = self._start + self._schedule.due(worker.number, turn)
        asked_at = worker.sent_at
        sent_at = worker.send(kind, due)
        if sent_at - asked_at > LATE_S and not self._was_away(asked_at, sent_at):
            worker.slow_until = sent_at
        if sent_at - due > LATE_S:
            self._summary.late[kind][self._reason(worker, due, sent_at)] += 1

    def _reason(self, worker: Worker, due: float, sent_at: float) -> int:
        if self._was_away(due, sent_at):
            return GENERATOR
        return SERVER if due < worker.slow_until else CONNECTION

    def _was_away(self, since: float, now: float) -> bool:
        """Whether this process did not run for most of the time."""
        # An answer that waited out a stall may be handled before the next tick notes it.
        began, ended = (self._last_tick, now) if now - self._last_tick > LATE_S else self._stall
        return ended - max(since, began) > (now - since) / 2

    def _next(self, worker: Worker) -> int:
        turn = worker.turn
        worker.turn += 1
        worker.behind -= 1
        self._waiting -= 1
        return turn

    def answered(self, route: int, now: float, due: float, sent_at: float) -> None:
        self._last_answer = now
        self._summary.latencies[route].append(int((now - due) * 1_000_000))
        self._summary.services[route].append(int((now - sent_at) * 1_000_000))

    def failed(self, route: int, why: str, now: float) -> None:
        self._last_answer = now
        self._summary.fail(route, why)

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
                        # Nobody took the connection for the first request that waits: that request has failed.
                        worker.refuse(self._schedule.kind(worker.number, self._next(worker)))
                    continue
                self.connected_again(worker)
                return

        task = asyncio.get_running_loop().create_task(again())
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnecting.discard)

    def connected_again(self, worker: Worker) -> None:
        if worker.behind:
            worker.slow_until = clock()
            self.catch_up(worker)

    async def close(self) -> None:
        self._closed = True
        for worker in self.workers:
            worker.close()
        for task in list(self._reconnecting):
            task.cancel()
        await asyncio.sleep(0)
