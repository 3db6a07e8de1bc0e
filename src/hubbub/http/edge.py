"""What all connections share."""

from __future__ import annotations

import asyncio
import heapq
import logging
import resource
from collections import deque
from collections.abc import Callable, Container, Coroutine, Iterable
from contextvars import Context
from email.utils import formatdate
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hubbub.http.access_log import AccessLog
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.heads import Heads
from hubbub.http.hot_routes import HotRoutes, Match
from hubbub.http.problems import problem
from hubbub.http.reply import COMMON_HEADERS, STATUS_LINES, Reply
from hubbub.http.shares import EXEMPT, Share, address_of
from hubbub.http.shortcuts import Shortcut
from hubbub.http.turns import Turns
from hubbub.measures import SECONDS, Histogram
from hubbub.tracing import Tracing

if TYPE_CHECKING:
    from hubbub.http.connection import Connection
    from hubbub.http.handshake import Handshake
    from hubbub.http.overview import Gathered

log = logging.getLogger("hubbub.http")

MAX_CONNECTIONS = 10_000
ADDRESS_CONNECTIONS = 1000
OTHER_FILES = 200  # that the process may have open beside its connections
MAX_ARRIVING = 64 * 1024 * 1024  # bytes of requests that are incomplete, or wait behind another
ADDRESS_ARRIVING = 8 * 1024 * 1024
MAX_UNSENT = 128 * 1024 * 1024  # bytes held of answers that clients don't read
_EXPIRED_AT_ONCE = 50  # connections, each with an answer: some milliseconds
_AT_ONCE = 64  # one in so many connections is closed when there is no room: looking for them costs

_RETRY = b"retry-after: 1\r\n"


class Edge:
    """What all connections share. ``clock`` is the loop's time, to the second, so that a deadline costs no call.
    ``trusted`` has the addresses of proxies. ``user_of`` returns the public id of the user whose session these headers
    (Cookie, Authorization) name, or the empty string. ``shortcut``: see shortcut_of. ``well`` is how every answer of
    a request that is answered well begins, up to its own fields. ``overview`` is set where the service is built
    (http.service.edge_of), and has the figures of this process.

    Once ``stopping`` is set, each connection's next answer is its last, and says so.
    """

    overview: Gathered

    def __init__(
        self,
        hot: HotRoutes,
        app: Any,
        tracing: Tracing | None = None,
        stop: Callable[[], None] = lambda: None,
        *,
        trusted: Container[str] = (),
        address_connections: int = ADDRESS_CONNECTIONS,
        access: AccessLog | None = None,
        turns: Turns | None = None,
        anonymous: AnonymousRate | None = None,
        user_of: Callable[[bytes | None, bytes | None], str] = lambda cookie, authorization: "",
        shortcut: Callable[[Match, dict[bytes, bytes]], Shortcut | None] | None = None,
    ) -> None:
        self.stopping = False
        self._stop = stop
        self.hot = hot
        self.app = app
        self.tracing = tracing
        self.access = access
        self.turns = turns or Turns()
        self.anonymous = anonymous or AnonymousRate()
        self.user_of = user_of
        self.shortcut = shortcut or (lambda match, headers: None)
        self.clock = 0.0
        self.date = b""
        self.well = b""
        self.heads = Heads()
        self._to_write: deque[tuple[Connection, Callable[..., None], tuple[Any, ...]]] = deque()
        self.connections: set[Connection | Handshake] = set()
        self.all_busy: set[str | None] = set()  # addresses none of whose connections can be closed; None is all of them
        self._trusted = trusted
        self._places = Share(_most_connections(), address_connections)
        self._arriving = Share(MAX_ARRIVING, ADDRESS_ARRIVING)
        self._unsent: dict[Connection, int] = {}
        self._not_taken = Share(MAX_UNSENT, MAX_UNSENT)
        self.requests = Histogram(
            "hubbub_http_request_duration_seconds",
            "From a request's arrival to its whole answer.",
            SECONDS,
            ("route", "status"),
        )
        self.tasks: set[asyncio.Task[None]] = set()

    def enter(self, connection: Connection | Handshake, host: str) -> Reply | None:
        """Count the connection from now on, or return its refusal. If there is no room, connections that wait for their
        clients are closed.
        """
        places = self._places
        address = connection.address = address_of(host, self._trusted)
        if not places.address_has_room(address, 1):
            self._make_room(address, (each for each in self.connections if each.address == address), places.each)
        if not places.has_room(1):
            self._make_room(None, self.connections, places.total)
        if not places.address_has_room(address, 1):
            return problem(
                429, f"One address may have at most {places.each} connections. Close one first.", headers=_RETRY
            )
        if not places.has_room(1):
            return problem(503, "Too many connections. Try again a little later.", headers=_RETRY)
        self.connections.add(connection)
        places.take(address, 1)
        return None

    def _make_room(self, where: str | None, among: Iterable[Connection | Handshake], bound: int) -> None:
        """Close the connections that have waited longest for their clients, first those of the address that has most:
        handshakes, then idle connections, then incomplete requests. If all are busy, they are not looked at again for
        each newcomer, but when one becomes idle, or after a second.
        """
        if where in self.all_busy:
            return
        waiting = (each for each in among if each.waits)
        order = heapq.nsmallest(
            max(1, bound // _AT_ONCE),
            waiting,
            key=lambda each: (-self._places.of(each.address), each.arriving, each.deadline),
        )
        for each in order:
            self.leave(each)
            each.abort()
        if not order:
            self.all_busy.add(where)

    def rests(self, connection: Connection) -> None:
        """It waits for its client now."""
        self.all_busy -= {connection.address, None}

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the work as a task in a new context; the task is held until it ends."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def leave(self, connection: Connection | Handshake) -> None:
        """Stop counting the connection."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._places.take(connection.address, -1)

    def write_soon(self, connection: Connection, write: Callable[..., None], *args: Any) -> None:
        """Let the connection write when all that has come in this turn of the loop is handled. Answers written in a row
        wake a client once; one by one between the work, they would wake it for each.
        """
        if not self._to_write:
            asyncio.get_running_loop().call_soon(self.write_now)
        self._to_write.append((connection, write, args))

    def write_now(self) -> None:
        """Write the answers that wait for that."""
        begun = perf_counter()
        while self._to_write:
            connection, write, args = self._to_write.popleft()
            try:
                write(*args)
            except Exception:
                log.exception("An answer could not be written.")
                connection.abort()
        self.turns.spend(perf_counter() - begun)

    def hold(self, connection: Connection, more: int, announced: int) -> Reply | None:
        """Count ``more`` bytes (fewer, if below zero) that have come on the connection and are not handled; or return
        the refusal, if these and the ``announced`` bytes don't fit.
        """
        arriving = self._arriving
        if more > 0 and not arriving.address_has_room(connection.address, more + announced):
            words = (
                f"Unfinished requests of one address may have at most {arriving.each} bytes. Send one after another."
            )
            return problem(429, words, headers=_RETRY)
        if more > 0 and not arriving.has_room(more + announced):
            return problem(503, "Too many unfinished requests. Try again a little later.", headers=_RETRY)
        arriving.take(connection.address, more)
        return None

    def not_taken(self, connection: Connection, size: int) -> None:
        """Note that ``size`` bytes are held for the connection's client, which has not taken them; 0 if none are.
        Above the limit for all clients, the connection that holds most, of the address that holds most, is cut off.
        """
        self._not_taken.take(connection.address, size - self._unsent.pop(connection, 0))
        if size:
            self._unsent[connection] = size
        while not self._not_taken.has_room(0):
            most = max(self._unsent, key=self._unsent_weight)
            self._not_taken.take(most.address, -self._unsent.pop(most))
            asyncio.get_running_loop().call_soon(most.transport.abort)  # it may be writing just now

    def _unsent_weight(self, connection: Connection) -> tuple[int, int]:
        size, address = self._unsent[connection], connection.address
        return (size if address == EXEMPT else self._not_taken.of(address), size)

    def stop(self) -> None:
        """Tell the streams, and give every connection one more answer."""
        self.stopping = True
        self._stop()

    async def sweep(self) -> None:
        """Keep the clock, and close what has been idle or slow for too long. Runs until cancelled."""
        while True:
            self.tick()
            late = [connection for connection in self.connections if connection.deadline < self.clock]
            for _ in range(2 if late else 0):
                await asyncio.sleep(0)  # what has come is read first: this process may have stood still
            for at, connection in enumerate(late):
                # It may have left, or sent a request, in a turn between.
                if connection in self.connections and connection.deadline < self.clock:
                    connection.expire()
                if at % _EXPIRED_AT_ONCE == _EXPIRED_AT_ONCE - 1:
                    await asyncio.sleep(0)
            await asyncio.sleep(1)

    def tick(self) -> None:
        self.all_busy.clear()
        self.clock = asyncio.get_running_loop().time()
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        self.well = STATUS_LINES[200] + self.date + COMMON_HEADERS


def _most_connections() -> int:
    """The limit that the open files allow: a connection that can't be accepted would wait unanswered."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if files == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(16, files - OTHER_FILES))
