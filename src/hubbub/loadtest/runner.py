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
import select
import socket
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from math import ceil
from select import EPOLLIN, EPOLLOUT
from urllib.parse import urlsplit

from hubbub.loadtest.http_protocol import Heads
from hubbub.loadtest.plan import Plan, Schedule
from hubbub.loadtest.sockets import NOT_NOW, connect, secure
from hubbub.loadtest.summary import CONNECTION, GENERATOR, SERVER, SecondSummary, SummaryBuilder
from hubbub.loadtest.worker import Worker, clock

TIMEOUT_S = 10.0
LATE_S = 0.1
_TICK_S = 0.001
_AT_ONCE = 65536  # bytes
_OTHERS_S = 0.01  # so often this process does what else it has to do, during a phase


class Runner:
    """``workers`` share this generator's requests. ``report`` is called about once a second with what happened in it,
    and once more at the end of each phase.
    """

    def __init__(self, url: str, report: Callable[[SecondSummary], None]) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = secure() if parts.scheme == "https" else None
        self._report = report
        self.workers: list[Worker] = []
        self.heads = Heads()
        self.summary = SummaryBuilder()
        self._schedule = Schedule(Plan(1, 1, 1, ()))
        self._order: Iterator[Worker] = iter(())  # whose turn it is, again and again
        self._sent_to = 0
        self._second = 0
        self._reported_at = 0.0
        self._cpu = 0.0
        self._last_tick = 0.0
        self._stall = (0.0, 0.0)  # from when to when this process did not run, the last time that it was over LATE_S
        self._look_at = 0.0
        self._looked_at = 0.0
        self._running = False
        self._closed = False
        self._let_others_at = 0.0
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._epoll = select.epoll()
        self._by_socket: dict[int, Worker] = {}

    async def connect(self) -> socket.socket:
        return await connect(self._host, self._port, self._tls)

    def watch(self, connection: socket.socket, worker: Worker) -> None:
        """From now on the worker receives what arrives on its connection."""
        self._by_socket[connection.fileno()] = worker
        self._epoll.register(connection, EPOLLIN)

    def watch_room(self, connection: socket.socket) -> None:
        self._epoll.modify(connection, EPOLLIN | EPOLLOUT)

    def watch_answers(self, connection: socket.socket) -> None:
        self._epoll.modify(connection, EPOLLIN)

    def forget(self, connection: socket.socket) -> None:
        self._epoll.unregister(connection)
        del self._by_socket[connection.fileno()]

    def listen(self) -> None:
        """Between phases the event loop notices what happens on the connections; during one, ``run`` does."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._receive, 0.0)

    def _receive(self, wait_s: float) -> None:
        """Deal with what has come on the connections; wait for something if there is nothing yet."""
        workers = self._by_socket
        came = []
        for number, events in self._epoll.poll(wait_s):
            worker = workers[number]
            if events & EPOLLOUT:
                worker.send_rest()
            try:
                worker.came = worker.socket.recv(_AT_ONCE)
            except NOT_NOW:
                continue
            except OSError:
                worker.came = b""
            worker.came_at = clock()
            came.append(worker)
        behind = []
        for worker in came:
            worker.receive()
            if worker.behind and worker.connected and not worker.busy:
                behind.append(worker)
        self._looked_at = clock()
        if behind and self._running:
            self._catch_up(behind)

    def _transmit(self, workers: list[Worker]) -> None:
        for worker in workers:
            request = worker.request
            worker.sent_at = clock()
            try:
                sent = worker.socket.send(request)
            except NOT_NOW:
                sent = 0
            except OSError:
                worker.lost()
                continue
            if sent < len(request):
                worker.wait_for_room(sent)

    async def _until_next_tick(self, now: float) -> None:
        until = now + _TICK_S
        while (now := clock()) < until:
            self._receive(_TICK_S)
        if now > self._let_others_at or self._reconnecting:
            self._let_others_at = now + _OTHERS_S
            await asyncio.sleep(0)

    async def run(self, plan: Plan, index: int, count: int) -> tuple[float, tuple[int, int]]:
        """One phase of generator ``index`` of ``count``.

        Returns:
            The seconds from the start to the last answer, at least the plan's, and the writes and reads never sent.
        """
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        start = clock()
        self._begin(Schedule(plan, index, count, start))
        seconds = plan.seconds
        last = ceil(seconds) - 1
        while (now := clock()) - start < seconds:
            self._pump(now)
            self._expire(now)
            if now - start >= self._second + 1 and self._second < last:
                self._tell()
            await self._until_next_tick(now)
        self._pump(now)
        self._running = False
        unsent = self._unsent()
        while self._second < last:  # a stall may have kept them; every generator reports as often as the others
            self._tell()
        while any(worker.busy for worker in self.workers):  # they may still be answered, within their time
            self._expire(now := clock())
            await self._until_next_tick(now)
        self._tell()
        self.listen()
        return max(seconds, self._looked_at - start), unsent

    def _begin(self, schedule: Schedule) -> None:
        self.summary.clear()
        self._schedule = schedule
        self._sent_to = self._second = 0
        self._cpu = time.process_time()
        self._reported_at = self._last_tick = clock()
        self._order = cycle(self.workers)
        for worker in self.workers:
            worker.begin(schedule, worker.number)
        self._running = True

    def _tell(self) -> None:
        now, cpu = clock(), time.process_time()
        second = self.summary.take(
            self._second,
            waiting=sum(worker.behind for worker in self.workers),
            cpu_s=cpu - self._cpu,
            span_s=now - self._reported_at,
        )
        self._cpu, self._reported_at = cpu, now
        self._second += 1
        self._report(second)

    def _unsent(self) -> tuple[int, int]:
        """Writes and reads that were due within the phase and never sent: their worker never got to them."""
        unsent = [0, 0]
        for worker in self.workers:
            for _ in range(worker.behind):
                unsent[worker.next_kind()] += 1
            worker.behind = 0
        return unsent[0], unsent[1]

    def _expire(self, now: float) -> None:
        """Give up on what takes longer than TIMEOUT_S."""
        if now < self._look_at:
            return
        self._look_at = now + 0.1
        for worker in self.workers:
            if worker.busy and now - worker.sent_at > TIMEOUT_S:
                worker.give_up()

    def _pump(self, now: float) -> None:
        """Send what has fallen due."""
        away_s = now - self._last_tick
        self.summary.lag_s = max(self.summary.lag_s, away_s - _TICK_S)
        if away_s > LATE_S:
            self._stall = (self._last_tick, now)
        self._last_tick = now
        due_to = max(self._schedule.due_by(now), self._sent_to)
        ready = []
        for worker in islice(self._order, due_to - self._sent_to):
            if worker.busy or worker.behind or not worker.connected:
                worker.behind += 1
            else:
                worker.prepare()
                ready.append(worker)
        self._sent_to = due_to
        self._transmit(ready)
        if ready and clock() - ready[0].due > LATE_S:  # nothing but this process kept them from being sent
            for worker in ready:
                if worker.sent_at - worker.due > LATE_S:
                    self.summary.late[worker.kind][GENERATOR] += 1

    def _catch_up(self, workers: list[Worker]) -> None:
        """Send the first of the requests that each worker is behind with."""
        for worker in workers:
            worker.behind -= 1
            worker.asked_at = worker.sent_at
            worker.prepare()
        self._transmit(workers)
        for worker in workers:
            asked_at, sent_at = worker.asked_at, worker.sent_at
            if sent_at - asked_at > LATE_S and not self._was_away(asked_at, sent_at):
                worker.slow_until = sent_at
            if sent_at - worker.due > LATE_S:
                self.summary.late[worker.kind][self._reason(worker)] += 1

    def _reason(self, worker: Worker) -> int:
        if self._was_away(worker.due, worker.sent_at):
            return GENERATOR
        return SERVER if worker.due < worker.slow_until else CONNECTION

    def _was_away(self, since: float, now: float) -> bool:
        """Whether this process did not run for most of the time."""
        # An answer that waited out a stall may be handled before the next tick notes it.
        began, ended = (self._last_tick, now) if now - self._last_tick > LATE_S else self._stall
        return ended - max(since, began) > (now - since) / 2

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
                        worker.behind -= 1
                        worker.refuse()
                    continue
                self.connected_again(worker)
                return

        task = asyncio.get_running_loop().create_task(again())
        self._reconnecting.add(task)
        task.add_done_callback(self._reconnecting.discard)

    def connected_again(self, worker: Worker) -> None:
        if worker.behind and self._running:
            worker.slow_until = clock()
            self._catch_up([worker])

    async def close(self) -> None:
        self._closed = True
        for worker in self.workers:
            worker.close()
        for task in list(self._reconnecting):
            task.cancel()
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        await asyncio.sleep(0)
