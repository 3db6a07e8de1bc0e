"""One client's connection: bytes to requests with httptools, requests to the hot routes or to ASGI, replies to bytes.

An asyncio Protocol that runs under uvicorn's Server (its ``http`` option), which brings the sockets, TLS, signals and
the shutdown. One request at a time is handled; what a client pipelines behind it waits in order, and reading pauses.

Everything a client can make large or slow is bounded: the head, the body, and the time for each (``Edge.sweep``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from email.utils import formatdate
from functools import partial
from time import perf_counter
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from hubbub.chat.commands import Outcome
from hubbub.chat.ticket import Ticket
from hubbub.http.asgi import AsgiExchange
from hubbub.http.eager import run
from hubbub.http.hot import Call, HotRoutes, Match
from hubbub.http.problems import failure, problem
from hubbub.http.reply import Reply
from hubbub.measures import SECONDS, Histogram
from hubbub.tracing import Tracing

MAX_HEAD = 32 * 1024
MAX_BODY = 256 * 1024  # a message of 10,000 characters takes at most 120,000 bytes, with every character escaped
MAX_CONNECTIONS = 10_000
IDLE_S = 75.0
REQUEST_S = 20.0  # for a request to arrive whole
DISCARD_S = 2.0  # for a refused client to read why, while what it still sends is thrown away
SEND_S = 30.0  # for a client to take what it asked for


class Edge:
    """What all connections share. ``clock`` is the loop's time, to the second, so that a deadline costs no call."""

    def __init__(self, hot: HotRoutes, app: Any, tracing: Tracing | None = None) -> None:
        self.hot = hot
        self.app = app
        self.tracing = tracing
        self.clock = 0.0
        self.date = b""
        self.connections: set[Connection] = set()
        self.requests = Histogram(
            "hubbub_http_request_duration_seconds",
            "From a request's arrival to its whole answer.",
            SECONDS,
            ("route", "status"),
        )
        self.tasks: set[asyncio.Task[None]] = set()

    def protocol(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> Connection:
        """What uvicorn calls for each connection."""
        return Connection(self, server_state)

    async def sweep(self) -> None:
        """Keep the clock, and close what has been idle or slow for too long. Runs until cancelled."""
        while True:
            self.tick()
            for connection in list(self.connections):
                if connection.deadline < self.clock:
                    connection.expire()
            await asyncio.sleep(1)

    def tick(self) -> None:
        self.clock = asyncio.get_running_loop().time()
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()


class Request:
    """A request as it arrives. ``refused`` is the answer that was found before it was complete."""

    __slots__ = ("begun", "body", "head_size", "headers", "keep_alive", "method", "refused", "route", "span", "target")

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_size = 0
        self.body = b""
        self.keep_alive = False
        self.refused: Reply | None = None
        self.begun = 0.0
        self.route = "other"
        self.span: Any = None


class Connection(asyncio.Protocol):
    """Invariants: ``busy`` from a request's start until its reply is written whole; while busy, complete requests wait
    in ``waiting``. ``deadline`` is when ``expire`` may be called, on the Edge's clock.
    """

    def __init__(self, edge: Edge, server_state: ServerState) -> None:
        self.edge = edge
        self.deadline = edge.clock + REQUEST_S
        self.busy = False
        self.waiting: deque[Request] = deque()
        self.writable = asyncio.Event()
        self.writable.set()
        self._server_state = server_state
        self._request = Request()
        self._arriving = False
        self._closing = False
        self._exchange: AsgiExchange | None = None
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)

    # asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if len(self.edge.connections) >= MAX_CONNECTIONS:
            full = problem(503, "Too many connections. Try again a little later.", headers=b"retry-after: 1\r\n")
            self.transport.write(full.encode(self.edge.date, close=True))
            self.transport.close()
            self._closing = True
            return
        self.edge.connections.add(self)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn only calls shutdown() on it

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.connections.discard(self)
        self._server_state.connections.discard(self)
        self._closing = True
        self.waiting.clear()
        self.writable.set()
        if self._exchange is not None:
            self._exchange.disconnected()

    def pause_writing(self) -> None:
        self.writable.clear()
        self.deadline = self.edge.clock + SEND_S

    def resume_writing(self) -> None:
        self.writable.set()
        if not self.busy:
            self._rest()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request was handled as if it had not asked to upgrade (RFC 9110, section 7.8); what follows it is in
            # no protocol that is spoken here.
            self._refuse_more()
        except httptools.HttpParserError:
            if not self._closing:
                self._reject(problem(400, "This is not a valid HTTP/1.1 request."))

    def shutdown(self) -> None:
        """The server is stopping: finish what has begun, take nothing new."""
        if self.busy:
            self.waiting.clear()
            self._refuse_more()
            if self._exchange is not None:
                self._exchange.stopping()
        else:
            self._close()

    def expire(self) -> None:
        """The deadline has passed."""
        if not self.writable.is_set():
            self.transport.abort()
        elif self.busy:
            self.deadline = self.edge.clock + SEND_S  # the service's own time, not the client's
        elif self._arriving:
            self._reject(problem(408, "The request took too long to arrive."))
        else:
            self._close()

    def _close(self) -> None:
        self._closing = True
        self.transport.close()

    def _refuse_more(self) -> None:
        """After the reply under way, if any, the connection closes."""
        self._closing = True
        if not self.busy:
            self.transport.close()

    # httptools ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request = Request()
        self._arriving = True
        if not self.busy:
            self.deadline = self.edge.clock + REQUEST_S

    def on_url(self, url: bytes) -> None:
        request = self._request
        request.target += url
        self._grow_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers.append((name.lower(), value))
        self._grow_head(len(name) + len(value))

    def _grow_head(self, size: int) -> None:
        request = self._request
        request.head_size += size
        if request.head_size > MAX_HEAD:
            self._reject(problem(431, f"The request line and headers may take {MAX_HEAD} bytes."))

    def on_headers_complete(self) -> None:
        request = self._request
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive()
        if request.method in (b"GET", b"HEAD"):
            return
        for name, value in request.headers:
            if name == b"content-length" and int(value) > MAX_BODY:
                self._reject(_too_large())
            elif name == b"expect" and value.lower() == b"100-continue" and not self._closing:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        request = self._request
        if len(request.body) + len(body) > MAX_BODY:
            self._reject(_too_large())
        elif not self._closing:
            request.body = request.body + body if request.body else body

    def on_message_complete(self) -> None:
        self._arriving = False
        if self._closing:
            return
        if self.busy:
            self.waiting.append(self._request)
            self.transport.pause_reading()
        else:
            self._handle(self._request)

    # Requests and replies ------------------------------------------------------------------------------------------

    def _reject(self, reply: Reply) -> None:
        """Answer a request that can't be read to its end, in its turn, and close: what follows can't be trusted."""
        if self._closing:
            return
        self._arriving = False
        rejected = Request()
        rejected.refused = reply
        if self.busy:
            self.waiting.append(rejected)
            self.transport.pause_reading()
        else:
            self._handle(rejected)
        self._closing = True

    def _handle(self, request: Request) -> None:
        self.busy = True
        request.begun = perf_counter()
        if request.refused is not None:
            self._reply(request, request.refused)
            return
        match = self.edge.hot.match(request.method, request.target)
        if match is not None:
            self._handle_hot(request, match)
        else:
            self._handle_asgi(request)

    def _handle_hot(self, request: Request, match: Match) -> None:
        handler, token, number, query, request.route = match
        headers = dict(request.headers)
        call = Call(token, number, query, headers, request.body)
        tracing = self.edge.tracing
        if tracing is not None:
            request.span = tracing.begin(request.method, headers)
            call.trace = tracing.parent(request.span)
        run(handler(call), partial(self._handled_hot, request))

    def _handled_hot(self, request: Request, result: Reply | Ticket | Exception) -> None:
        if type(result) is Reply:
            self._reply(request, result)
        elif type(result) is Ticket:
            result.then(partial(self._posted, request))
        else:
            self._reply(request, failure(cast(Exception, result)))

    def _posted(self, request: Request, outcome: Outcome) -> None:
        self._reply(request, self.edge.hot.posted(outcome))

    def _reply(self, request: Request, reply: Reply) -> None:
        close = self._closing or not request.keep_alive
        if not self.transport.is_closing():
            self.transport.write(reply.encode(self.edge.date, close=close))
        self.edge.requests.observe(perf_counter() - request.begun, (request.route, reply.status))
        if request.span is not None and self.edge.tracing is not None:
            self.edge.tracing.end(request.span, request.route, reply.status)
        if request.refused is not None and self.transport.can_write_eof():
            # Closing with bytes unread would reset the connection, and the client might never see the reply.
            self.busy = False
            self.transport.write_eof()
            self.deadline = self.edge.clock + DISCARD_S
        else:
            self.finish(close)

    def finish(self, close: bool) -> None:
        """The reply is written whole: close, or go on with the next request."""
        self.busy = False
        self._exchange = None
        if close or (self._closing and not self.waiting):
            self._close()
        elif self.waiting:
            # Not from here: a long pipeline would nest as deep as it is long.
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._rest()

    def _rest(self) -> None:
        self.deadline = self.edge.clock + (REQUEST_S if self._arriving else IDLE_S)

    def _next(self) -> None:
        if self.waiting and not self.busy:
            request = self.waiting.popleft()
            if not self.waiting:
                self.transport.resume_reading()
            self._handle(request)

    def _handle_asgi(self, request: Request) -> None:
        path, _, query = request.target.partition(b"?")
        raw_path = path or b"/"
        decoded = unquote_to_bytes(raw_path).decode("utf-8", "replace")
        transport = self.transport
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": (transport.get_extra_info("sockname") or ("", 0))[:2],
            "client": (transport.get_extra_info("peername") or ("", 0))[:2],
            "scheme": "http" if transport.get_extra_info("sslcontext") is None else "https",
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": decoded,
            "raw_path": raw_path,
            "query_string": query,
            "headers": request.headers,
        }
        self._exchange = AsgiExchange(self, scope, request.body, keep_alive=request.keep_alive)
        task = asyncio.get_running_loop().create_task(self._exchange.run(self.edge.app))
        self.edge.tasks.add(task)
        task.add_done_callback(self.edge.tasks.discard)

    @property
    def closing(self) -> bool:
        return self._closing


def _too_large() -> Reply:
    return problem(413, f"The body may take {MAX_BODY} bytes.")
