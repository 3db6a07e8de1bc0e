"""One worker: one user, one cookie, one persistent connection, one request at a time."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, cast

from hubbub.loadtest.http_protocol import UNKNOWN, USUAL, BadResponse, Response, parse
from hubbub.loadtest.mix import WRITES
from hubbub.loadtest.plan import READ, WRITE, Schedule, Turns
from hubbub.loadtest.scenario import Scenario
from hubbub.loadtest.sockets import NOT_NOW

if TYPE_CHECKING:
    from hubbub.loadtest.runner import Runner

clock = time.perf_counter

_RECONNECT_S = 0.1


class Worker(Turns):
    """``behind`` counts requests that are due and not sent, as the one before them is still under way. What fell due
    before ``slow_until`` waited for the service, see Runner. The runner sends ``request`` and puts what it receives
    into ``came``: it does so for many workers at once.

    Invariant: the request under way was the last that was taken from the turns, and the ``behind`` ones are next.
    """

    __slots__ = (
        "_buffer",
        "_heads",
        "_known",
        "_latencies",
        "_runner",
        "_scenario",
        "_services",
        "asked_at",
        "behind",
        "busy",
        "came",
        "came_at",
        "connected",
        "number",
        "request",
        "sent_at",
        "slow_until",
        "socket",
    )

    def __init__(self, runner: Runner, number: int, scenario: Scenario) -> None:
        self._runner = runner
        self._scenario = scenario
        self._heads = runner.heads
        self._known = runner.heads.known
        self._latencies = runner.summary.latencies
        self._services = runner.summary.services
        self.socket = cast(socket.socket, None)
        self._buffer = self.request = self.came = b""
        self.asked_at = self.sent_at = self.came_at = self.slow_until = 0.0
        self.number = number
        self.behind = 0
        self.busy = False
        self.connected = False

    def begin(self, schedule: Schedule, worker: int) -> None:
        """Begin a phase."""
        super().begin(schedule, worker)
        self.behind = 0
        self.slow_until = 0.0

    async def connect(self) -> None:
        """Raises OSError when the service can't be reached."""
        async with asyncio.timeout(10):
            self.socket = connection = await self._runner.connect()
        self._buffer = b""
        self.connected = True
        self._runner.watch(connection, self)

    def prepare(self) -> None:
        """Make the next request."""
        self.request = self._scenario.write() if self.next_kind() == WRITE else self._scenario.read()
        self.busy = True

    @property
    def kind(self) -> int:
        """That of the request made last."""
        return WRITE if self._scenario.route in WRITES else READ

    def wait_for_room(self, sent: int) -> None:
        """Only so many bytes of the request could be sent now."""
        self.request = self.request[sent:]
        self._runner.watch_room(self.socket)

    def send_rest(self) -> None:
        """There is room for more of the request."""
        try:
            self.request = self.request[self.socket.send(self.request) :]
        except NOT_NOW:
            return
        except OSError:
            self.lost()
            return
        if not self.request:
            self._runner.watch_answers(self.socket)

    def receive(self) -> None:
        """Deal with what came."""
        data = self.came
        scenario = self._scenario
        route = scenario.route
        at, start, end = self._known.get(len(data), UNKNOWN)
        # The usual answer, see Heads. It is known again here, not there: a call would cost more than what it does.
        if data[at:start] == end and data[:12] == USUAL and self.busy and not self._buffer:
            wrong = scenario.wrong(200, data, start)
        elif (response := self._parsed(data)) is not None:
            wrong = scenario.wrong(response.status, response.body)
            if response.close:
                self.busy = False
                self.lost()
        else:
            return
        now = self.came_at
        self.busy = False
        if wrong is None:
            self._latencies[route].append(int((now - self.due) * 1_000_000))
            self._services[route].append(int((now - self.sent_at) * 1_000_000))
        else:
            self._runner.summary.fail(route, wrong)

    def _parsed(self, data: bytes) -> Response | None:
        """The answer that is to be judged; None when there is none, or not yet."""
        if not data:
            self.lost()
            return None
        whole = self._buffer + data
        try:
            response = parse(whole)
        except BadResponse as error:
            self._drop(f"bad response: {error}")
            return None
        self._buffer = b"" if response is not None else whole
        if response is None or not self.busy:  # nobody waits for an answer with which the service closes the connection
            return None
        if not response.close and response.end == len(whole):
            self._heads.learn(whole, response.body)
        return response

    def lost(self) -> None:
        self._drop("connection lost")

    def give_up(self) -> None:
        """The request under way gets no more time."""
        self._drop("timeout")

    def _drop(self, why: str) -> None:
        """Close the connection and open another. The request under way has failed, if there is one."""
        if self.connected:
            self.close()
            if self.busy:
                self._fail(why)
            self._runner.reconnect(self, _RECONNECT_S)

    def refuse(self) -> None:
        """The next request can't be sent at all."""
        self.prepare()
        self._fail("connection refused")

    def _fail(self, why: str) -> None:
        self.busy = False
        self._runner.summary.fail(self._scenario.route, why)

    def close(self) -> None:
        if self.connected:
            self.connected = False
            self._runner.forget(self.socket)
            self.socket.close()
