"""One worker: one user, one cookie, one kept connection, one request at a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

from hubbub.loadtest.plan import READ, WRITE
from hubbub.loadtest.wire import BadResponse, parse

if TYPE_CHECKING:
    from hubbub.loadtest.runner import Runner

clock = time.perf_counter

_RECONNECT_S = 0.1


class Worker(asyncio.Protocol):
    """``behind`` counts requests that are due and not sent, as the one before them is still under way.

    Invariant: the request under way, or next, is number ``next`` of the schedule, and the ``behind`` ones follow it at
    steps of the number of workers.
    """

    __slots__ = (
        "_buffer",
        "_due",
        "_kind",
        "_reads",
        "_requests",
        "_runner",
        "_transport",
        "behind",
        "busy",
        "connected",
        "next",
        "sent_at",
    )

    def __init__(self, runner: Runner, write: bytes, chats: bytes, messages: bytes) -> None:
        self._runner = runner
        self._requests = (write, chats, messages)
        self._transport = cast(asyncio.Transport, None)
        self._buffer = b""
        self._kind = READ
        self._reads = 0
        self._due = 0.0
        self.sent_at = 0.0
        self.behind = 0
        self.busy = False
        self.connected = False
        self.next = 0

    async def connect(self) -> None:
        """Raises OSError when the service can't be reached."""
        await asyncio.wait_for(self._runner.connect(self), 10)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""
        self.connected = True

    def send(self, kind: int, due: float) -> None:
        """Send a request that was due at ``due`` on the clock."""
        self.busy = True
        self._kind = kind
        self._due = due
        if kind == WRITE:
            request = self._requests[0]
        else:
            self._reads += 1
            request = self._requests[1 + self._reads % 2]
        self.sent_at = clock()
        self._transport.write(request)

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
        status = response.status
        if status == 200 and (self._kind == READ or response.body.startswith(b'{"messageNumber":')):
            self._runner.answered(self._kind, int((now - self._due) * 1_000_000), self._due, self.sent_at)
        else:
            kind = f"status {status}" if status != 200 else "another body than was asked for"
            self._runner.failed(self._kind, kind)
        if response.close:
            self._transport.close()
        elif self.behind:
            self._runner.catch_up(self)

    def _fail(self, kind: str) -> None:
        if self.busy:
            self.busy = False
            self._runner.failed(self._kind, kind)

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
