"""One connection, on a transport that the test controls."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from hubbub.chat.errors import RateLimited
from hubbub.chat.model import ChatKey
from hubbub.http import connection
from hubbub.http.body import MAX_BODY, MAX_FRAMING
from hubbub.http.connection import Connection
from hubbub.http.edge import ADDRESS_ARRIVING, Edge
from hubbub.http.problems import LATE_S
from hubbub.http.reader import MAX_HEADERS
from hubbub.http.reply import PIECE, Reply
from hubbub.http.turns import TURN_S, UNKNOWN_S
from tests.conftest import eventually_async

AT_ONCE = int(TURN_S / UNKNOWN_S)  # ASGI requests that begin in one turn of the loop


class NoRoutes:
    def match(self, _method: bytes, _target: bytes) -> Any:
        return None


class RefusingRoutes:
    """Hot routes that refuse each request with a 429."""

    async def refuse(self, _call: Any) -> Any:
        raise RateLimited("Slow down.", limit=1, retry_after=1)

    def match(self, _method: bytes, _target: bytes) -> Any:
        return self.refuse, ChatKey("token", 1), b"", "list"


class LargeRoutes:
    """Hot routes that answer at once, with more than one turn of the loop may write."""

    body = b"x" * 100 * PIECE

    async def answer(self, _call: Any) -> Reply:
        return Reply(200, self.body)

    def match(self, _method: bytes, _target: bytes) -> Any:
        return self.answer, ChatKey("token", 1), b"", "list"


class Transport:
    """A transport whose client takes nothing while ``full``. More than ``high`` unsent bytes pause the protocol."""

    def __init__(self, protocol: Connection, address: str = "192.0.2.1") -> None:
        self.protocol = protocol
        self.address = address
        self.full = False
        self.high = 0
        self.reading = True
        self.closed = self.aborted = False
        self.written = b""
        self.unsent = 0

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def write(self, data: bytes | memoryview) -> None:
        self.written += data
        if self.full:
            self.unsent += len(data)
            if self.unsent > self.high and not self.protocol.paused:
                self.protocol.pause_writing()

    def taken(self) -> None:
        self.full, self.unsent = False, 0
        self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> object:
        return (self.address, 5) if name == "peername" else None

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        if not self.aborted:
            self.closed = self.aborted = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False


class App:
    """An ASGI app that records the scope and body of each request, and answers with ``answer``."""

    def __init__(self, answer: bytes = b"ok", headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.answer = answer
        self.headers = headers or [(b"content-length", b"%d" % len(answer))]
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.answer})


def edge_for(app: App, *, address_connections: int = 1000, trusted: tuple[str, ...] = ()) -> Edge:
    edge = Edge(cast(Any, NoRoutes()), app, trusted=trusted, address_connections=address_connections)
    edge.tick()
    return edge


def connected(app: App, edge: Edge | None = None, address: str = "192.0.2.1") -> tuple[Connection, Transport]:
    protocol = Connection(edge or edge_for(app))
    transport = Transport(protocol, address)
    protocol.connection_made(cast(Any, transport))
    return protocol, transport


async def settled() -> None:
    """Let everything run that does not wait for the client."""
    for _ in range(100):
        await asyncio.sleep(0)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_client_with_many_connections_delays_no_other() -> None:
    app = App()
    edge = edge_for(app)
    for _ in range(50):
        connected(app, edge)[0].data_received(GET)
    connected(app, edge, "198.51.100.1")[0].data_received(GET)
    await settled()
    asked = [scope["client"][0] for scope in app.scopes]
    assert len(asked) == 51
    assert asked.index("198.51.100.1") <= AT_ONCE + 1


async def test_a_user_delays_no_other_at_the_same_address() -> None:
    app = App()
    edge = Edge(cast(Any, NoRoutes()), app, user_of=lambda cookie, _: (cookie or b"").decode())
    edge.tick()
    for user in [b"bob"] * 50 + [b"ann"]:
        connected(app, edge)[0].data_received(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: %b\r\n\r\n" % user)
    await settled()
    asked = [dict(scope["headers"])[b"cookie"] for scope in app.scopes]
    assert len(asked) == 51
    assert asked.index(b"ann") <= 2 * AT_ONCE


async def test_a_user_does_not_wait_for_a_crowd_behind_the_same_proxy() -> None:
    app = App()
    edge = edge_for(app, trusted=("192.0.2.7",))
    edge.user_of = lambda cookie, _: "ann" if cookie else ""
    ann, _ = connected(app, edge, "192.0.2.7")
    places = []
    for _ in range(2):  # it is not known who she is before her first request is read
        app.scopes.clear()
        for _ in range(50):
            connected(app, edge, "192.0.2.7")[0].data_received(GET)
        ann.data_received(GET[:-2] + b"Cookie: hers\r\n\r\n")
        await settled()
        assert len(app.scopes) == 51
        names = [dict(scope["headers"]) for scope in app.scopes]
        places.append(next(at for at, headers in enumerate(names) if b"cookie" in headers))
    assert places[1] <= AT_ONCE + 1


async def test_few_large_answers_are_written_in_one_turn_of_the_loop_and_nobody_waits_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hubbub.http.turns.TURN_S", 0.005)
    edge = Edge(cast(Any, LargeRoutes()), App())
    edge.tick()
    addresses = ["192.0.2.1"] * 20 + ["198.51.100.1"]
    transports = []
    for address in addresses:
        protocol, transport = connected(App(), edge, address)
        protocol.data_received(GET)
        transports.append(transport)
    written = [0]
    while len(written) < 200 and written[-1] < len(addresses):
        await asyncio.sleep(0)
        written.append(sum(len(each.written) > len(LargeRoutes.body) for each in transports))
        if written[-1] > 5:
            assert len(transports[-1].written) > len(LargeRoutes.body)
    assert written[-1] == len(addresses)
    assert max(after - before for before, after in itertools.pairwise(written)) <= 2


async def test_a_client_whose_bytes_take_long_to_read_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of others are read and answered between two pieces of its bytes."""
    monkeypatch.setattr("hubbub.http.turns.TURN_S", 1e-6)
    app = App()
    edge = edge_for(app)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    costly = [connected(app, edge)[0] for _ in range(50)]
    for protocol in costly:
        protocol.data_received(head + one_byte_chunks(1000))
    read = [0]
    protocol, transport = connected(app, edge, "198.51.100.1")
    protocol.data_received(GET)
    while not transport.written and len(read) < 200:
        await asyncio.sleep(0)
        read.append(sum(each.arriving for each in costly))
    assert transport.written.endswith(b"ok")
    assert read[-1] <= 5, "others' bytes were read first"
    await settled()
    assert all(each.arriving for each in costly)
    for each in costly:
        each.data_received(b"0\r\n\r\n")
    await settled()
    assert app.bodies.count(b"x" * 1000) == len(costly)


async def test_bodies_count_until_the_turn_of_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.http.turns.TURN_S", 1e-6)
    app = App()
    edge = edge_for(app)
    body = b"x" * (100 * 1024)
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    clients = [connected(app, edge) for _ in range(100)]
    for protocol, _ in clients:
        protocol.data_received(post)
    most = 0
    while len(app.bodies) + sum(b" 429 " in transport.written for _, transport in clients) < len(clients):
        waiting = sum(protocol.busy and protocol._exchange is None for protocol, _ in clients)
        most = max(most, waiting)
        assert waiting * len(body) <= edge._arriving.used <= ADDRESS_ARRIVING
        await asyncio.sleep(0)
    assert most > 20
    assert app.bodies == [body] * len(app.bodies)
    assert len(app.bodies) >= 70
    await settled()
    assert edge._arriving.used == 0


async def test_a_large_answer_counts_until_it_is_written_and_is_not_held_for_a_client_that_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hubbub.http.turns.TURN_S", 1e-6)
    counted: dict[Connection, int] = {}
    edge = Edge(cast(Any, LargeRoutes()), App())
    edge.tick()
    monkeypatch.setattr(edge, "not_taken", counted.__setitem__)
    clients = [connected(App(), edge) for _ in range(3)]
    for protocol, _ in clients:
        protocol.data_received(GET)
    for _ in range(200):
        if any(counted.values()):
            break
        await asyncio.sleep(0)
    (waits, waiting), *_ = [side for side in clients if counted.get(side[0])]
    assert counted[waits] > len(LargeRoutes.body)
    waiting.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not counted[waits]
    await settled()
    assert not any(counted.values())
    assert sum(len(transport.written) > len(LargeRoutes.body) for _, transport in clients) >= 2


@pytest.mark.parametrize("routes", [NoRoutes, RefusingRoutes])
async def test_a_logged_request_includes_the_wait_to_be_read_and_for_a_turn(routes: type) -> None:
    logged: list[float] = []

    class Access:
        def add(self, *about: Any) -> None:
            logged.append(about[-1])

    edge = Edge(cast(Any, routes()), App(), access=cast(Any, Access()))
    edge.tick()
    protocol, _ = connected(App(), edge)
    edge.turns.spend(1)
    protocol.data_received(GET)
    came = time.perf_counter()
    await eventually_async(lambda: len(logged) == 1)
    assert logged[0] <= came


async def test_a_request_whose_client_left_before_its_turn_is_not_begun() -> None:
    app = App()
    edge = edge_for(app)
    for _ in range(AT_ONCE):
        connected(app, edge)[0].data_received(GET)
    protocol, transport = connected(app, edge)
    protocol.data_received(GET)
    transport.abort()
    await settled()
    assert len(app.scopes) == AT_ONCE


async def test_the_next_request_waits_until_the_last_answer_is_taken() -> None:
    app = App()
    protocol, transport = connected(app)
    transport.full = True
    protocol.data_received(GET * 1000)
    await settled()
    assert len(app.scopes) == 1
    assert not transport.reading
    protocol.data_received(GET)  # it was on its way when reading stopped
    await settled()
    assert len(app.scopes) == 1
    transport.taken()
    transport.full = True
    await settled()
    assert len(app.scopes) == 2
    assert not transport.reading
    transport.taken()
    for _ in range(30):
        await settled()
    assert len(app.scopes) == 1001
    assert transport.reading


async def test_nothing_is_read_behind_an_answer_that_is_not_taken() -> None:
    app = App()
    protocol, transport = connected(app)
    transport.full = True
    protocol.data_received(GET)
    await settled()
    protocol.data_received(GET)
    await settled()
    assert len(app.scopes) == 1
    assert not transport.reading
    assert protocol.deadline == protocol.edge.clock + connection.SEND_S, "it has to be taken in time"


async def test_a_client_that_keeps_sending_after_a_429_gets_few_of_them() -> None:
    edge = Edge(cast(Any, RefusingRoutes()), App())
    edge.tick()
    protocol, transport = connected(App(), edge)
    begun = time.monotonic()
    protocol.data_received(GET * 1000)
    await eventually_async(lambda: transport.written.count(b" 429 ") >= 3)
    assert time.monotonic() - begun > 2.5 * LATE_S


async def test_a_large_answer_is_written_as_it_is_taken() -> None:
    protocol, transport = connected(App(b"x" * 100 * PIECE))
    transport.full = True
    protocol.data_received(GET)
    await settled()
    assert len(transport.written) < 3 * PIECE
    transport.taken()
    await settled()
    assert len(transport.written) > 100 * PIECE
    assert not protocol.busy


async def test_a_client_that_leaves_ends_its_answer() -> None:
    protocol, transport = connected(App(b"x" * 100 * PIECE))
    transport.full = True
    protocol.data_received(GET)
    await settled()
    transport.closed = True
    protocol.connection_lost(None)
    await settled()
    assert not protocol.edge.tasks


async def test_a_slow_reader_gets_time_and_one_that_reads_nothing_does_not() -> None:
    body = b"x" * 10 * PIECE
    protocol, transport = connected(App(body))
    transport.full = True
    protocol.data_received(GET)
    await settled()
    while protocol.busy:
        protocol.edge.clock += connection.SEND_S
        assert protocol.deadline >= protocol.edge.clock
        transport.taken()
        transport.full = True
        await settled()
    assert transport.written.endswith(body)
    protocol.expire()
    assert transport.aborted


async def test_the_end_of_an_answer_has_to_be_taken_too() -> None:
    protocol, transport = connected(App())
    protocol.data_received(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await settled()
    assert transport.closed
    protocol.expire()
    assert transport.aborted


POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_trailers_are_not_headers() -> None:
    app = App()
    protocol, transport = connected(app)
    protocol.data_received(POST + b"3;a=b\r\nabc\r\n0\r\nCookie: auth_token=x\r\nX-Forwarded-For: y\r\n\r\n" + GET)
    await settled()
    assert app.bodies == [b"abc", b""]
    names = [[name for name, _ in scope["headers"]] for scope in app.scopes]
    assert names == [[b"host", b"transfer-encoding"], [b"host"]]
    assert transport.written.count(b"HTTP/1.1 200 ") == 2


def one_byte_chunks(count: int) -> bytes:
    return b"1\r\nx\r\n" * count


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"3\r\nabc\r\n0\r\nno colon\r\n\r\n", b"400"),
        (b"3\r\nabc\r\n0\r\na: b\r\n folded\r\n\r\n", b"400"),
        (b"3\r\nabc\r\n0\r\na: b\n\r\n", b"400"),
        (b"3\r\nabc\r\n0\r\na: \x00\r\n\r\n", b"400"),
        (b"3\r\nabcd\r\n0\r\n\r\n", b"400"),
        (b"3\nabc\r\n0\r\n\r\n", b"400"),
        (b"3 \r\nabc\r\n0\r\n\r\n", b"400"),
        (b"\r\n", b"400"),
        (b"0" * 9 + b"\r\n\r\n", b"400"),
        (b"3\r\nabc\r\n0\r\n" + b"a: b\r\n" * MAX_FRAMING, b"413"),
        (b"3;" + b"a" * MAX_FRAMING, b"413"),
        (one_byte_chunks(MAX_FRAMING), b"413"),
        (b"%x\r\n" % (MAX_BODY + 1), b"413"),
        ((b"%x\r\n" % MAX_BODY) + b"x" * MAX_BODY + b"\r\n1\r\n", b"413"),
    ],
    ids=range(14),
)
@pytest.mark.parametrize("cut", [1, 7, 10_000_000])
async def test_chunks_that_are_wrong_or_too_many_are_refused(sent: bytes, status: bytes, cut: int) -> None:
    app = App()
    protocol, transport = connected(app)
    stream = POST + sent
    for at in range(0, len(stream), cut):
        protocol.data_received(stream[at : at + cut])
    await settled()
    assert transport.written.startswith(b"HTTP/1.1 " + status), transport.written[:100]
    assert not app.scopes
    assert transport.closed


@pytest.mark.parametrize("cut", [1, 1000, 10_000_000])
async def test_a_body_is_gathered_however_it_comes(cut: int) -> None:
    app = App()
    protocol, _ = connected(app)
    body = bytes(range(256)) * 40
    sized = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in (body[:1], body[1:5000], body[5000:]))
    stream = sized + POST + chunks + b"0\r\n\r\n" + GET
    for at in range(0, len(stream), cut):
        protocol.data_received(stream[at : at + cut])
        await asyncio.sleep(0)
    await settled()
    assert app.bodies == [body, body, b""]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n", b"400"),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost:\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a,b\r\n", b"200"),  # a host may contain commas
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:3000\r\n", b"200"),
        (b"GET http://a HTTP/1.1\r\nHost: x\r\nHost: x\r\n", b"400"),
        (b"GET http://a HTTP/1.1\r\n", b"400"),
        (b"GET http://user@a/ HTTP/1.1\r\nHost: x\r\n", b"400"),
        (b"GET http:///x HTTP/1.1\r\nHost: x\r\n", b"400"),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: x\r\n", b"400"),
        (b"GET * HTTP/1.1\r\nHost: x\r\n", b"400"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: x\r\n", b"400"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n", b"200"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n", b"505"),
        (b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * MAX_HEADERS, b"431"),
    ],
)
async def test_a_request_must_name_its_host_and_be_unambiguous(head: bytes, status: bytes) -> None:
    protocol, transport = connected(App())
    protocol.data_received(head + b"\r\n")
    await settled()
    assert transport.written.startswith(b"HTTP/1.1 " + status), transport.written[:100]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://Other:80/a/b?c=d", b"/a/b", b"c=d"),
        (b"HTTPS://Other:80", b"/", b""),
        (b"http://Other:80?c", b"/", b"c"),
    ],
)
async def test_an_absolute_target_replaces_the_host(target: bytes, path: bytes, query: bytes) -> None:
    app = App()
    protocol, _ = connected(app)
    protocol.data_received(b"GET %b HTTP/1.1\r\nHost: x\r\nAccept: y\r\n\r\n" % target)
    await settled()
    (scope,) = app.scopes
    assert (scope["raw_path"], scope["query_string"]) == (path, query)
    assert sorted(scope["headers"]) == [(b"accept", b"y"), (b"host", b"Other:80")]


async def test_a_client_that_waits_for_100_continue_gets_it_when_its_turn_comes() -> None:
    protocol, transport = connected(App())
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    protocol.data_received(GET + body)
    await settled()
    assert transport.written.index(b"200 OK") < transport.written.index(b"100 Continue")
    protocol.data_received(b"abc")
    await settled()
    assert transport.written.count(b"200 OK") == 2
