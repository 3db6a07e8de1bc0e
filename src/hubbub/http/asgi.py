"""One request and its response between a connection and an ASGI application (ASGI 3.0, HTTP spec 2.3)."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hubbub.http.problems import failure
from hubbub.http.reply import COMMON_HEADERS, EVENT_STREAM, NO_SNIFF, PIECE, STATUS_LINES
from hubbub.http.routing import ROUTE

if TYPE_CHECKING:
    from hubbub.http.connection import Connection

log = logging.getLogger("hubbub.http")


class AsgiExchange:
    """A request that an ASGI application answers. Its body is complete before the application starts; ``receive`` then
    waits for the client to leave. ``endless`` is a response that ends only when its listener leaves or the service ends
    it; ``watched`` is one that the application gives up when the client leaves. ``begun`` is perf_counter's when the
    request had come.
    """

    def __init__(
        self, connection: Connection, scope: dict[str, Any], body: bytes, *, begun: float, keep_alive: bool
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._body: bytes | None = body
        self._keep_alive = keep_alive
        self._gone = asyncio.Event()
        self._started = False
        self._complete = False
        self._chunked = False
        self._shared = False
        self.endless = False
        self.watched = False
        self._begun = begun
        self._status = 500
        tracing = connection.edge.tracing
        self._span = tracing.begin(scope["method"].encode(), dict(scope["headers"])) if tracing is not None else None
        self._no_body = scope["method"] == "HEAD"
        self._head = b""

    def disconnected(self) -> None:
        self._gone.set()

    async def run(self, app: Any) -> None:
        try:
            await self._run(app)
        finally:
            self._noted()

    async def _run(self, app: Any) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:
            if not self._started:
                self._fail(error)
                return
            log.exception("A request failed after its response had begun.")
        if not self._complete:
            # The response is cut short, and closing is the only way to say so.
            self._connection.finish(close=True)

    def _noted(self) -> None:
        """Write the line of the access log, at the end: a stream too has one line."""
        access, scope = self._connection.edge.access, self._scope
        if access is not None:
            method, path = scope["method"].encode(), scope["raw_path"]
            access.add(self._connection.peer, method, path, scope["headers"], self._status, self._begun)

    def _fail(self, error: Exception) -> None:
        close = not self._keep_alive or self._connection.last
        self._count()
        self._connection.transport.write(failure(error).encode(self._connection.edge.date, close=close))
        self._connection.finish(close)

    def _count(self) -> None:
        edge, route = self._connection.edge, self._scope.get(ROUTE, "other")
        if edge.tracing is not None:
            edge.tracing.end(self._span, route, self._status)
        if not self.endless:  # a stream lasts as long as its listener stays, which says nothing of the service
            edge.requests.observe(perf_counter() - self._begun, (route, self._status))

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        self.watched = True
        if self._connection.ended:
            self._connection.transport.close()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            await self._write(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, status: int, headers: Any) -> None:
        self._started = True
        self._status = status
        lines = [STATUS_LINES[status], self._connection.edge.date]
        cached = any(name.lower() == b"cache-control" for name, _ in headers)
        self._shared = cached
        lines.append(NO_SNIFF if cached else COMMON_HEADERS)
        sized = status in (204, 304)
        self._no_body = self._no_body or sized
        for name, value in headers:
            sized = sized or name.lower() == b"content-length"
            self.endless = self.endless or value.startswith(EVENT_STREAM)
            lines.append(b"%b: %b\r\n" % (name, value))
        if not sized and self._scope["http_version"] != "1.0":  # whose clients know no chunks: the connection closes
            self._chunked = not self._no_body
            lines.append(b"transfer-encoding: chunked\r\n")
        self._keep_alive = self._keep_alive and not self._connection.last
        if not self._keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    async def _write(self, body: bytes, *, more: bool) -> None:
        if self._complete:
            return
        if self._no_body:
            body = b""
        begin, end = self._head, b""
        self._head = b""
        if self._chunked:
            if body:
                begin, end = begin + b"%x\r\n" % len(body), b"\r\n"
            end += b"" if more else b"0\r\n\r\n"
        connection = self._connection
        if len(body) <= PIECE:
            await connection.write(begin + body + end, more=more)
        else:  # not copied: the application holds it anyway
            await connection.write(begin)
            await connection.write(body, end, shared=self._shared, more=more)
        if not more:
            self._complete = True
            self._count()
            # Who hears a stream end comes back by a new connection; any other has not been told to, and may use this.
            connection.finish(close=not self._keep_alive or (self.endless and connection.edge.stopping))
