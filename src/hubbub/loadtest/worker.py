"""One worker: one user, one cookie, one persistent connection, one request at a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from hubbub.loadtest.http_protocol import BadResponse, parse
from hubbub.loadtest.plan import WRITE
from hubbub.loadtest.scenario import Scenario

if TYPE_CHECKING:
    from hubbub.loadtest.runner import Runner

clock = time.perf_counter

_RECONNECT_S = 0.1


class Worker(asyncio.Protocol):
    """``behind`` counts requests that are due and not sent, as the one before them is still under way. What fell due
    before ``slow_until`` waited for the service, see Runner.

    Invariant: the request under way, or next, is number ``turn`` of this worker's schedule, and the ``behind`` ones
    follow it.
    """

    __slots__ = (
        "_buffer",
        "_due",
        "_runner",
        "_scenario",
        "_transport",
        "behind",
        "busy",
        "connected",
        "number",
        "sent_at",
        "slow_until",
        "turn",
    )

    def __init__(self, runner: Runner, number: int, scenario: Scenario) -> None:
        self._runner = runner
        self._scenario = scenario
        self._transport = cast(asyncio.Transport, None)
        self._buffer = b""
        self._due = 0.0
        self.number = number
        self.sent_at = 0.0
        self.slow_until = 0.0
        self.behind = 0
        self.busy = False
        self.connected = False
        self.turn = 0

    async def connect(self) -> None:
        """Raises OSError when the service can't be reached."""
        await asyncio.wait_for(self._runner.connect(self), 10)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""
        self.connected = True

    def send(self, kind: int, due: float) -> float:
        """Send a request that was due at ``due`` on the clock; returns when it was."""
        request = self._scenario.write() if kind == WRITE else self._scenario.read()
        self.busy = True
        self._due = due
        self.sent_at = sent_at = clock()
        self._transport.write(request)
        return sent_at

    def data_received(self, data: bytes) -> None:
        now = clock()
        try:
            response = parse(self._buffer + data if self._buffer else data)
        except BadResponse as error:
            self._fail(f"bad response: {error}")
            self._transport.abort()
            return
        if response is None:
            self._buffer += data
            return
        self._buffer = b""
        if not self.busy:  # an answer nobody waits for: the test gave up on it, or the service closes the connection
            return
        self.busy = False
        wrong = self._scenario.wrong(response.status, response.body)
        if wrong is None:
            self._runner.answered(self._scenario.route, now, self._due, self.sent_at)
        else:
            self._runner.failed(self._scenario.route, wrong, now)
        if response.close:
            self._transport.close()
        elif self.behind:
            self._runner.catch_up(self)

    def _fail(self, why: str) -> None:
        if self.busy:
            self.busy = False
            self._runner.failed(self._scenario.route, why, clock())

    def refuse(self, kind: int) -> None:
        """The next request can't be sent at all."""
        route = self._scenario.write if kind == WRITE else self._scenario.read
        route()
        self._runner.failed(self._scenario.route, "connection refused", clock())

    def give_up(self) -> None:
        """The request under way gets no more time."""
        self._fail("timeout")
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected = False
        self._fail("connection lost")
        self._runner.reconnect(self, _RECONNECT_S)

    def close(self) -> None:
        if self.connected:
            self._transport.close()
