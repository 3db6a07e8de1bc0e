"""One client's connection: bytes to requests, requests to the hot routes or to ASGI, replies to bytes.

An asyncio Protocol; http.server accepts its client, and stops it. One request at a time is read and handled. What a
client pipelines behind it waits as raw bytes, and no more is read, until the answer is written and the client has read
it: a client that does not read can make the service hold one answer, and one read of the socket. An answer larger than
a PIECE is written as its client reads it.

Everything a client can make large or slow is bounded: the head and the body in http.reader and http.body, the time for
a request to arrive and for an answer to be taken here (``Edge.sweep`` calls ``expire``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from hubbub.chat.commands import Outcome
from hubbub.chat.errors import RateLimited, Unauthenticated
from hubbub.chat.ports import Entry
from hubbub.chat.ticket import Ticket
from hubbub.http.asgi import AsgiExchange
from hubbub.http.eager import run
from hubbub.http.heads import Head, head_of
from hubbub.http.hot_routes import Answer, Call, Handler, Match
from hubbub.http.problems import LATE_S, Refused, failure, problem
from hubbub.http.reader import Reader, Request
from hubbub.http.reply import CLOSE, END, PIECE, Reply
from hubbub.http.shares import EXEMPT
from hubbub.http.shortcuts import Came, Later, Shortcut
from hubbub.http.turns import UNKNOWN_S

if TYPE_CHECKING:
    from hubbub.http.access_log import AccessLog
    from hubbub.http.edge import Edge

IDLE_S = 75.0
REQUEST_S = 20.0  # for a request to arrive whole
DISCARD_S = 2.0  # for a refused client to read why, while what it still sends is discarded
_SMALL = 4096  # bytes of a body that waits uncounted: some 40 MB of all connections
_WRITING_S = 2e-9  # that it takes to write a byte of a large answer
SEND_S = 30.0  # for a client to take an answer, or the next piece of a large one


class Connection(asyncio.Protocol):
    """One client's connection: ``busy`` from a request's start until its reply is written completely; ``paused`` while
    written bytes wait for the client. ``_request`` is the request that is being answered, ``_user`` who sent the latest
    that has waited, empty if that is not known. ``_waiting`` is the size in bytes of an answer that is written in
    pieces and has pieces left. ``deadline`` is when ``expire`` may be called, on the Edge's clock.

    Invariants: the transport reads only while ``_ahead`` is empty, which has the bytes that came behind the request
    that is handled, from ``_at`` on. ``_held`` is how many bytes have come and are not handled, as the edge counts
    them, and the body of a request that is ``_queued`` for its turn, unless it is small. Once ``_closing``, nothing
    more that comes is a request. Once ``ended``, nothing more comes.
    """

    __slots__ = (
        "_ahead",
        "_at",
        "_closing",
        "_drained",
        "_exchange",
        "_held",
        "_queued",
        "_reader",
        "_request",
        "_turn",
        "_user",
        "_waiting",
        "address",
        "busy",
        "deadline",
        "edge",
        "ended",
        "paused",
        "transport",
    )

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.address = EXEMPT
        self.deadline = edge.clock + REQUEST_S
        self.busy = False
        self.paused = False
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._ahead = b""
        self._at = 0
        self._closing = False
        self._drained: asyncio.Future[None] | None = None
        self.ended = False
        self._exchange: AsgiExchange | None = None
        self._held = 0
        self._queued = False
        self._reader = Reader()
        self._request: Request | None = None
        self._turn: asyncio.Future[None] | None = None  # that a large answer waits for
        self._user = ""
        self._waiting = 0

    # asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(1)  # bytes; at 0 TLS would always be paused
        refused = self.edge.enter(self, self.peer)
        if refused is not None:
            self._closing = True
            self.transport.write(refused.encode(self.edge.date, close=True))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.leave(self)
        self._closing = True
        self._ahead = b""
        self.edge.hold(self, -self._held, 0)
        self._held = 0
        self._waiting = 0
        self._take_note()
        self._count_unsent()
        if self._turn is not None and not self._turn.done():  # so that the answer is not held until its turn
            self._turn.set_result(None)
        if self._exchange is not None:
            self._exchange.disconnected()

    def eof_received(self) -> bool:
        """The client sends no more. It may still read, so its complete requests are answered, except those that
        continue only while the client is there, a stream or a search: it may as well have left. (AsgiExchange ends one
        that begins later.) TLS ends both ways at once.
        """
        self.ended = True
        if self._exchange is not None and self._exchange.watched:
            return False
        if self.transport.can_write_eof():
            return self.busy or bool(self._ahead)
        self.edge.write_now()  # the last chance of an answer that is made
        return False

    def pause_writing(self) -> None:
        self.paused = True
        self.deadline = self.edge.clock + SEND_S
        self._count_unsent()

    def resume_writing(self) -> None:
        self._take_note()
        if not self.busy and not self._closing:
            self._rest()
            self._next()

    def _take_note(self) -> None:
        """The client has taken what was written, or has gone."""
        if self.paused:
            self.paused = False
            self._count_unsent()
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _count_unsent(self) -> None:
        """Let the edge count what is held for the client: a large answer from when it is made, and what is written and
        not taken. (The transport keeps a written buffer until the client has taken its last byte.)
        """
        held = self._waiting + PIECE if self.paused or self._waiting > PIECE else 0
        self.edge.not_taken(self, held)

    async def drained(self) -> None:
        """Wait until the client has taken what was written, or has gone."""
        if self.paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    async def write(self, data: bytes, end: bytes = b"", *, shared: bool = False, more: bool = False) -> None:
        """Write the data, and the end, as the client takes it. Return when the last piece is written, or taken if there
        is ``more``. Until then the data is held, and counts, unless it is ``shared``: in memory once for all clients. A
        large answer waits for its turn, as a request does.
        """
        if self.transport.is_closing():  # nobody takes it any more
            data = b""
        self._waiting = 0 if shared else len(data)
        self._count_unsent()
        if len(data) > PIECE and self._request is not None:
            self._turn = self.edge.turns.turn(self._owner(self._request), len(data) * _WRITING_S)
            await self._turn
            self._turn = None
        for at in range(0, len(data), PIECE):
            if self.paused:
                await self.drained()
            if self.transport.is_closing():
                break
            piece = data[at : at + PIECE]
            self.transport.write(piece + end if at + PIECE >= len(data) else piece)
        if more:
            await self.drained()
        self._waiting = 0
        self._count_unsent()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self.busy or self.paused or self._ahead:
            self._ahead, self._at = self._ahead[self._at :] + data, 0
            self.transport.pause_reading()
            if self._hold() is not None:  # the current answer is the last
                self._closing, self._ahead = True, b""
            return
        if not self._reader.taken:
            raw = head_of(data)
            head = self.edge.heads.get(raw)
            if head is not None and len(data) == len(raw) + head.length:
                body = data[len(raw) :]
                if not self._answer_at_once(head, body):
                    self._handle(_known_request(head, body))
                return
        if self.edge.turns.free:
            self._read(data, 0)
        else:
            self._ahead, self._at = data, 0
            self.transport.pause_reading()
            too_much = self._hold()
            if too_much is not None:
                self._refuse(too_much)
            else:
                self._next()

    def leave(self) -> None:
        """Close, unless a request has begun: its answer will be the last. A stream that has not ended by now never
        will.
        """
        if self._exchange is not None and self._exchange.endless:
            self.transport.abort()
        elif not (self.busy or self._ahead or self._reader.taken):
            self._close()

    def abort(self) -> None:
        self.transport.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        if self.paused or self.transport.is_closing():
            self.transport.abort()
        elif self.busy or self._ahead:
            self.deadline = self.edge.clock + SEND_S  # the service's own time, not the client's
        elif self._reader.taken and not self._closing:
            self._refuse(problem(408, "The request took too long to arrive."))
        else:
            self._close()

    def _close(self) -> None:
        self._closing = True
        self.deadline = self.edge.clock + SEND_S  # for the client to take the rest
        self.transport.close()

    # Requests ----------------------------------------------------------------------------------------------------

    def _read(self, data: bytes, at: int, came: float = 0.0) -> Request | None:
        """Take the bytes from ``at`` up to the end of a request; handle and return the request if it is complete.
        ``came`` is perf_counter's when they could have been read; 0 is now."""
        begun = self._reader.taken
        begun_at = perf_counter()
        try:
            request, at = self._reader.read(data, at)
        except Refused as refused:
            self._refuse(refused.reply)
            return None
        finally:
            self.edge.turns.spend(perf_counter() - begun_at)
        if at < len(data):
            self._ahead, self._at = data, at
            self.transport.pause_reading()
        if request is None or self._ahead or self._held:
            too_much = self._hold()
            if too_much is not None:
                self._refuse(too_much)
                return None
        if self._reader.expects:
            self._reader.expects = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request is not None:
            request.begun = came or begun_at
            self._handle(request)
        elif self.ended:
            self._close()
        elif not begun:
            self.deadline = self.edge.clock + REQUEST_S
        return request

    def _hold(self) -> Reply | None:
        """Let the edge count what has come and is not handled; the refusal if that is too much."""
        size = self._reader.size + len(self._ahead)
        if self._queued and self._request is not None:
            size += len(self._request.body)
        refused = self.edge.hold(self, size - self._held, self._reader.announced)
        if refused is None:
            self._held = size
        return refused

    @property
    def peer(self) -> str:
        """The address of the connected client; empty if it has none."""
        return str((self.transport.get_extra_info("peername") or ("",))[0])

    @property
    def arriving(self) -> bool:
        return self._reader.taken > 0

    @property
    def waits(self) -> bool:
        """Whether it waits for its client to begin a request, or to continue one."""
        return not (self.busy or self.paused or self._ahead or self._closing)

    def _next(self) -> None:
        """Read what has come, once the client has taken the answer before it: in the turn of the connection's latest
        user, because the request's own is not known before."""
        if self._ahead and not (self.busy or self.paused or self._closing):
            self.edge.turns.begin(partial(self._read_ahead, perf_counter()), lambda: self._user or self.address)

    def _read_ahead(self, came: float) -> None:
        if self._ahead and not (self.busy or self.paused or self._closing):
            data, self._ahead = self._ahead, b""
            request = self._read(data, self._at, came)
            if request is not None:
                self._owner(request)  # is remembered: the next one is read in this user's turn
            if not (self._ahead or self.ended):
                self.transport.resume_reading()

    def _refuse(self, reply: Reply) -> None:
        """Answer a request that can't be read to its end, and close: what follows can't be trusted."""
        request = Request()
        request.refused = reply
        self._closing, self._ahead = True, b""
        self._reader = Reader()
        self._hold()
        self._handle(request)

    def _answer_at_once(self, head: Head, body: bytes) -> bool:
        """Answer the request, or begin to, as ``_handle`` would; if this can't be done by its shortcut, by its route.
        False: nothing was done."""
        edge = self.edge
        shortcut, turns = head.shortcut, edge.turns
        if shortcut is None or not turns.free or edge.tracing is not None or edge.stopping or self.ended:
            return False
        begun = perf_counter()
        self.busy = True
        try:
            answer = shortcut(body, "")
        except Exception as error:  # noqa: BLE001 - every failure becomes a problem, and is logged there
            turns.spend(perf_counter() - begun)
            self._came(head, body, begun, error)
            return True
        done = perf_counter()
        turns.spend(done - begun)
        if answer is None:
            request = self._request = _known_request(head, body, begun)
            self._handle_hot(request, head.match, head.headers, None)
            turns.spend(perf_counter() - done)
        elif type(answer) is Later:
            answer.then = partial(self._came, head, body, begun)
        else:
            self._came(head, body, begun, cast(Answer, answer))
        return True

    def _came(self, head: Head, body: bytes, begun: float, came: Came) -> None:
        """What comes of the shortcut of a request that was begun at once."""
        if type(came) is Reply and len(came.body) <= PIECE:
            self.edge.write_soon(self, self._answer, head, begun, came)
        elif type(came) is Ticket:
            came.then(partial(self._posted_at_once, head, begun))
        else:
            request = self._request = _known_request(head, body, begun)
            if type(came) is Entry:
                self._handle_hot(request, head.match, head.headers, None, came)
            else:
                self._handled_hot(request, cast(Answer | Exception, came))

    def _posted_at_once(self, head: Head, begun: float, outcome: Outcome) -> None:
        """The outcome of a post that was begun at once."""
        reply = self.edge.hot.posted(outcome)
        if reply.status == 200:
            self.edge.write_soon(self, self._answer, head, begun, reply)
        else:
            request = self._request = _known_request(head, b"", begun)
            self._reply_or_late(request, reply)

    def _answer(self, head: Head, begun: float, reply: Reply) -> None:
        """Write the answer of a request that was begun at once, and is answered well."""
        edge, close = self.edge, self.last
        if not self.transport.is_closing():
            self.transport.write(b"".join((edge.well, reply.fields, CLOSE if close else END, reply.body)))
        edge.requests.observe(perf_counter() - begun, head.series)
        if edge.access is not None:
            self._note_known(edge.access, head, 200, begun)
        self.finish(close)

    def _handle(self, request: Request) -> None:
        self.busy = True
        self._request = request
        begun = perf_counter()
        request.begun = request.begun or begun
        if request.refused is not None:
            self._reply(request, request.refused)
            return
        known = request.known
        match = known.match if known is not None else self.edge.hot.match(request.method, request.target)
        # An ASGI request runs as a task, so how long it takes is not known here: few begin in a turn of the loop.
        least_s = UNKNOWN_S if match is None else 0.0
        turns = self.edge.turns
        if turns.free:
            self._begin(request, match)
            turns.spend(max(perf_counter() - begun, least_s))
            return
        # A small body need not fit: what hostile clients hold must not refuse the posts of others.
        self._queued = len(request.body) > _SMALL
        too_much = self._hold() if self._queued else None
        if too_much is not None:
            self._queued = False
            self._refuse(too_much)
            return
        turns.begin(partial(self._begin, request, match), partial(self._owner, request), least_s)

    def _owner(self, request: Request) -> Hashable:
        """The client whose turn the request takes: its user as far as that is remembered, else its address. Those who
        are not logged in and come through a proxy are all one: else each of their connections would have a turn."""
        headers = request.known.headers if request.known is not None else dict(request.headers)
        self._user = self.edge.user_of(headers.get(b"cookie"), headers.get(b"authorization"))
        return self._user or self.address

    def _begin(self, request: Request, match: Match | None) -> None:
        """It is the request's turn."""
        if self.transport.is_closing():  # its client has left while it waited
            return
        if self._queued:
            self._queued = False
            self._hold()
        known = request.known
        if known is not None:
            self._handle_hot(request, known.match, known.headers, known.shortcut)
        elif match is None:
            self._handle_asgi(request)
        else:
            headers = dict(request.headers)
            shortcut = self.edge.shortcut(match, headers)
            if request.raw and request.keep_alive:
                self.edge.heads.learn(request.raw, request.method, request.headers, match, shortcut)
            self._handle_hot(request, match, headers, shortcut)

    def _handle_hot(
        self,
        request: Request,
        match: Match,
        headers: dict[bytes, bytes],
        shortcut: Shortcut | None,
        entered: Entry | None = None,
    ) -> None:
        handler, chat, query, request.route = match
        call = Call(chat, query, headers, request.body, entered=entered)
        tracing = self.edge.tracing
        if tracing is not None:
            request.span = tracing.begin(request.method, headers)
            call.trace = tracing.parent(request.span)
        try:
            answer = shortcut(request.body, call.trace) if shortcut is not None else None
        except Exception as error:  # noqa: BLE001 - every failure becomes a problem, and is logged there
            self._handled_hot(request, error)
            return
        if type(answer) is Later:
            answer.then = partial(self._came_in_turn, request, handler, call)
        elif answer is not None:
            self._handled_hot(request, cast(Answer, answer))
        else:
            run(handler(call), partial(self._handled_hot, request))

    def _came_in_turn(self, request: Request, handler: Handler, call: Call, came: Came) -> None:
        """What comes of the shortcut of a request that waited for its turn, or whose head was not known."""
        if type(came) is Entry:
            call.entered = came
            run(handler(call), partial(self._handled_hot, request))
        else:
            self._handled_hot(request, cast(Answer | Exception, came))

    def _handled_hot(self, request: Request, result: Answer | Exception) -> None:
        if type(result) is Reply:
            self._reply(request, result)
        elif type(result) is Ticket:
            result.then(partial(self._posted, request))
        else:
            if type(result) is Unauthenticated:
                try:
                    self.edge.anonymous.count(self.address, len(request.body))
                except RateLimited as refused:
                    self._reply_or_late(request, failure(refused))
                    return
            self._reply_or_late(request, failure(cast(Exception, result)))

    def _posted(self, request: Request, outcome: Outcome) -> None:
        self._reply_or_late(request, self.edge.hot.posted(outcome))

    def _reply_or_late(self, request: Request, reply: Reply) -> None:
        if reply.status == 429:
            asyncio.get_running_loop().call_later(LATE_S, self._reply, request, reply)
        else:
            self._reply(request, reply)

    def _handle_asgi(self, request: Request) -> None:
        scope, begun = self._scope(request), request.begun
        self._exchange = AsgiExchange(self, scope, request.body, begun=begun, keep_alive=request.keep_alive)
        self.edge.start(self._exchange.run(self.edge.app))

    def _scope(self, request: Request) -> dict[str, Any]:
        path, _, query = request.target.partition(b"?")
        transport = self.transport
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "server": (transport.get_extra_info("sockname") or ("", 0))[:2],
            "client": (transport.get_extra_info("peername") or ("", 0))[:2],
            "scheme": "http" if transport.get_extra_info("sslcontext") is None else "https",
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "headers": request.headers,
        }

    # Replies -----------------------------------------------------------------------------------------------------

    def _reply(self, request: Request, reply: Reply) -> None:
        if len(reply.body) > PIECE:
            self.edge.start(self._reply_in_pieces(request, reply, self.last or not request.keep_alive))
        else:
            self.edge.write_soon(self, self._write_reply, request, reply)

    def _write_reply(self, request: Request, reply: Reply) -> None:
        close = self.last or not request.keep_alive
        if not self.transport.is_closing():
            self.transport.write(reply.encode(self.edge.date, close=close))
        self._replied(request, reply.status, close)

    async def _reply_in_pieces(self, request: Request, reply: Reply, close: bool) -> None:
        """The body is not copied: a cache may hold it, and so may the answers to others."""
        await self.write(reply.head(self.edge.date, close=close))
        await self.write(reply.body)
        self._replied(request, reply.status, close)

    def _replied(self, request: Request, status: int, close: bool) -> None:
        self.edge.requests.observe(perf_counter() - request.begun, (request.route, status))
        if request.span is not None and self.edge.tracing is not None:
            self.edge.tracing.end(request.span, request.route, status)
        if self.edge.access is not None:
            self._note(self.edge.access, request, status)
        if request.refused is not None and self.transport.can_write_eof():
            # Closing with bytes unread would reset the connection, and the client might never see the reply.
            self.busy = False
            self.transport.write_eof()
            self.transport.resume_reading()
            self.deadline = self.edge.clock + DISCARD_S
        else:
            self.finish(close)

    def _note(self, access: AccessLog, request: Request, status: int) -> None:
        if request.known is not None:
            self._note_known(access, request.known, status, request.begun)
        else:
            access.add(self.peer, request.method, request.target, request.headers, status, request.begun)

    def _note_known(self, access: AccessLog, head: Head, status: int, begun: float) -> None:
        access.add(self.peer, head.method, head.target, [*head.headers.items()], status, begun)

    def finish(self, close: bool) -> None:
        """The reply is written completely: close, or continue with the next request."""
        self.busy = False
        self._request = self._exchange = None
        if close or self._closing:
            self._close()
        elif self._ahead:
            # Not called from here: the calls for a long pipeline would nest as deep as it is long.
            asyncio.get_running_loop().call_soon(self._next)
        elif not self.paused:
            self._rest()

    def _rest(self) -> None:
        if self.edge.all_busy:
            self.edge.rests(self)
        self.deadline = self.edge.clock + IDLE_S

    @property
    def last(self) -> bool:
        """Whether an answer that begins now is this connection's last."""
        return self._closing or ((self.edge.stopping or self.ended) and not self._ahead)


def _known_request(head: Head, body: bytes, begun: float = 0.0) -> Request:
    """A request with a head that was seen before."""
    request = Request()
    request.method, request.known, request.keep_alive, request.body = head.method, head, True, body
    request.begun, request.route = begun, head.series[0]
    return request
