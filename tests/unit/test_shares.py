"""How much all clients together may use, and how much each address."""

from __future__ import annotations

import asyncio
import resource
from typing import Any, cast

import pytest

from hubbub.http import connection, edge
from hubbub.http.connection import Connection
from hubbub.http.edge import Edge
from hubbub.http.hot_routes import Call, Match
from hubbub.http.reply import PIECE, Reply
from hubbub.http.shares import EXEMPT, Share, address_of
from tests.unit.test_connection import GET, App, NoRoutes, Transport, connected, edge_for, settled

HALF = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    ("host", "share"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("127.0.0.1", EXEMPT),
        ("::1", EXEMPT),
        ("10.0.0.1", EXEMPT),
        ("", EXEMPT),
    ],
)
def test_an_address_has_a_share(host: str, share: str) -> None:
    assert address_of(host, {"10.0.0.1"}) == share


def test_a_share_that_is_given_back_is_forgotten() -> None:
    share = Share(10, 5)
    share.take("a", 5)
    share.take("a", -5)
    assert (share.used, share.of("a"), share._by) == (0, 0, {})


async def test_connections_of_an_address_are_bounded_and_idle_ones_give_way() -> None:
    app = App()
    shared = edge_for(app, address_connections=2)
    first, second, third = (connected(app, shared) for _ in range(3))
    assert [transport.aborted for _, transport in (first, second, third)].count(True) == 1
    assert not third[1].aborted
    other = connected(app, shared, "192.0.2.2")
    await settled()
    assert not other[1].aborted
    assert len(shared.connections) == 3


async def test_a_client_that_is_being_answered_does_not_give_way() -> None:
    app = App()
    shared = edge_for(app, address_connections=2)
    busy = [connected(app, shared) for _ in range(2)]
    for protocol, _ in busy:
        protocol.data_received(GET)
    _, transport = connected(app, shared)
    assert transport.written.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after" in transport.written
    assert transport.closed
    await settled()
    assert [each.written[:15] for _, each in busy] == [b"HTTP/1.1 200 OK"] * 2
    _, transport = connected(app, shared)
    assert not transport.closed


async def test_connections_of_a_busy_address_are_checked_once_a_tick() -> None:
    checks = 0

    class Busy(Connection):
        __slots__ = ()

        @property
        def waits(self) -> bool:
            nonlocal checks
            checks += 1
            return False

    shared = edge_for(App(), address_connections=20)
    for _ in range(20):
        Busy(shared).connection_made(cast(Any, Transport(Connection(shared))))
    for _ in range(10):
        assert connected(App(), shared)[1].written.startswith(b"HTTP/1.1 429 ")
    assert checks == 20
    shared.tick()
    connected(App(), shared)
    assert checks == 40


async def test_proxies_and_this_machine_are_not_counted_as_one_address() -> None:
    app = App()
    shared = edge_for(app, address_connections=1, trusted=("10.0.0.1",))
    made = [connected(app, shared, address) for address in ("127.0.0.1", "::1", "10.0.0.1") for _ in range(3)]
    assert not any(transport.closed for _, transport in made)


async def test_with_no_room_the_longest_idle_of_the_address_with_most_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge, "MAX_CONNECTIONS", 4)
    app = App()
    shared = edge_for(app)
    one = connected(app, shared, "192.0.2.9")
    one[0].deadline -= 100
    many = [connected(app, shared) for _ in range(3)]
    many[1][0].deadline -= 5
    many[0][0].data_received(b"GET /")  # it is not idle, so it is not the first to go
    many[0][0].deadline -= 10
    connected(app, shared, "192.0.2.8")
    assert [transport.aborted for _, transport in [one, *many]] == [False, False, True, False]
    await settled()
    connected(app, shared, "192.0.2.7")
    connected(app, shared, "192.0.2.6")
    assert len(shared.connections) == 4


async def test_with_no_room_and_nobody_idle_newcomers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_CONNECTIONS", 2)
    app = App()
    shared = edge_for(app)
    for _ in range(2):
        connected(app, shared)[0].data_received(GET)
    _, transport = connected(app, shared)
    assert transport.written.startswith(b"HTTP/1.1 503 ")
    await settled()


def test_there_are_fewer_connections_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert edge._most_connections() == 1024 - edge.OTHER_FILES


async def test_half_sent_bodies_of_an_address_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "ADDRESS_ARRIVING", 1_000_000)
    app = App()
    shared = edge_for(app)
    half = [connected(app, shared) for _ in range(20)]
    for protocol, _ in half:
        protocol.data_received(HALF + b"x" * 90_000)
        await asyncio.sleep(0)
    await settled()
    refused = [transport.written for _, transport in half if transport.written]
    assert len(refused) == 10
    assert all(each.startswith(b"HTTP/1.1 429 ") and b"retry-after" in each for each in refused)
    protocol, transport = connected(app, shared, "192.0.2.2")
    protocol.data_received(HALF + b"x" * 90_000)
    assert not transport.written, "another address has its own share"
    for each, _ in half:
        each.connection_lost(None)
    protocol, transport = connected(app, shared)
    protocol.data_received(HALF + b"x" * 90_000)
    protocol.data_received(b"x" * 10_000)
    await settled()
    assert transport.written.startswith(b"HTTP/1.1 200 "), "what is gone is given back"


async def test_half_sent_requests_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_ARRIVING", 1_000_000)
    app = App()
    shared = edge_for(app)
    heads = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 120
    sent: list[tuple[bytes, Transport]] = []
    for number in range(200):
        protocol, transport = connected(app, shared, f"192.0.2.{number}")
        data = heads if number % 2 else HALF + b"x" * 20_000
        protocol.data_received(data)
        sent.append((data, transport))
        await asyncio.sleep(0)  # what waits for the next turn counts too: on a busy machine others would be refused
    await settled()
    unsent_bytes = sum(len(data) for data, transport in sent if not transport.written)
    assert 300_000 < unsent_bytes < 1_000_000
    refused = [transport.written for _, transport in sent if transport.written]
    assert all(each.startswith(b"HTTP/1.1 503 ") for each in refused)
    protocol, transport = connected(app, shared, "127.0.0.1")
    protocol.data_received(GET)
    await settled()
    assert transport.written.startswith(b"HTTP/1.1 200 "), "a request that comes whole needs no room"


async def test_handled_bytes_are_released() -> None:
    app = App()
    protocol, _ = connected(app)
    for piece in (HALF, b"x" * 50_000, b"x" * 50_000 + GET * 3 + b"GET"):
        protocol.data_received(piece)
        assert protocol.edge._arriving.used > 0
    for _ in range(5):
        await settled()
    assert len(app.scopes) == 4
    assert protocol.edge._arriving.used == 3
    protocol.data_received(GET[3:])
    await settled()
    assert protocol.edge._arriving.used == 0


async def test_a_pipeline_behind_an_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "ADDRESS_ARRIVING", 1000)
    app = App()
    protocol, transport = connected(app)
    protocol.data_received(GET)
    protocol.data_received(GET * 100)
    await settled()
    assert len(app.scopes) == 1
    assert b"connection: close" in transport.written
    assert transport.closed


class Lists:
    """A hot route that always answers with the same list of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self._reply = Reply(200, b"x" * size)

    def match(self, _method: bytes, _target: bytes) -> Match:
        return self._list, cast(Any, None), b"", "list"

    async def _list(self, _call: Call) -> Reply:
        return self._reply


def unsent_bytes(asked: list[tuple[Connection, Transport]], body: int) -> int:
    """Return the bytes that the answers take in memory. An answer is kept whole until all of it is written."""
    return sum(
        transport.unsent + (body if protocol.busy else 0) for protocol, transport in asked if not transport.aborted
    )


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("size", [20_000, 1_000_000])
async def test_answers_that_nobody_takes_are_bounded_in_all(
    monkeypatch: pytest.MonkeyPatch, hot: bool, size: int
) -> None:
    monkeypatch.setattr(edge, "MAX_UNSENT", 5_000_000)
    shared = Edge(cast(Any, Lists(size) if hot else NoRoutes()), App(b"x" * size))
    shared.tick()
    lazy = []
    for _ in range(300):
        protocol, transport = connected(cast(Any, None), shared)
        lazy.append((protocol, transport))
        transport.full = True
        protocol.data_received(GET)
        await settled()
        assert unsent_bytes(lazy, size) <= 5_000_000
    assert unsent_bytes(lazy, size) > 2_000_000
    for _ in range(40):
        for _, transport in lazy:
            if not transport.aborted:
                transport.taken()
        await settled()
    for protocol, transport in lazy:
        assert transport.aborted or (transport.written.endswith(b"x" * size) and not protocol.busy)
    assert shared._not_taken.used == 0
    assert not shared._unsent


async def test_a_client_that_reads_its_answer_keeps_it_while_another_address_reads_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge, "MAX_UNSENT", 5_000_000)
    body = b"x" * 2_000_000
    shared = edge_for(App(body))
    slow, its_transport = connected(App(), shared, "192.0.2.2")
    its_transport.full = True
    slow.data_received(GET)
    await settled()
    shared.app = App(b"x" * 1_000_000)
    for _ in range(20):
        protocol, transport = connected(App(), shared)
        transport.full = True
        protocol.data_received(GET)
        await settled()
        its_transport.taken()
        its_transport.full = True
        await settled()
    while slow.busy:
        its_transport.taken()
        its_transport.full = True
        await settled()
    assert its_transport.written.endswith(body)


async def test_no_more_clients_are_cut_off_than_have_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "MAX_UNSENT", 5_000_000)
    shared = edge_for(App(b"x" * 2_000_000))
    asked = [connected(App(), shared, address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
    for protocol, transport in asked:
        transport.full = True
        protocol.data_received(GET)
    await settled()
    assert [transport.aborted for _, transport in asked].count(True) == 1


async def test_an_answer_to_a_client_that_has_left_counts_no_more_and_takes_no_turn() -> None:
    body = b"x" * 2_000_000
    shared = edge_for(App(body))
    protocol, transport = connected(App(), shared)
    transport.full = True
    protocol.data_received(GET)
    await settled()
    assert shared._not_taken.used > len(body)
    transport.closed = True
    protocol.connection_lost(None)
    assert shared._not_taken.used == 0
    await settled()
    shared.turns.spend(1)
    await protocol.write(body)
    assert not shared.turns.free, "this turn of the loop goes on"
    assert shared._not_taken.used == 0


async def test_a_document_that_many_ask_for_counts_by_what_is_written() -> None:
    shared = edge_for(App(b"x" * 10_000_000, [(b"cache-control", b"no-cache"), (b"content-length", b"10000000")]))
    asked = [connected(App(), shared) for _ in range(30)]
    for protocol, transport in asked:
        transport.full = True
        protocol.data_received(GET)
    await settled()
    assert not any(transport.aborted for _, transport in asked)
    assert shared._not_taken.used == 30 * PIECE


async def test_a_slow_body_is_cut_off() -> None:
    protocol, transport = connected(App())
    protocol.data_received(HALF)
    began = protocol.deadline
    protocol.edge.clock += connection.REQUEST_S / 2
    protocol.data_received(b"x")
    assert protocol.deadline == began
    protocol.expire()
    await asyncio.sleep(0)
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    await asyncio.sleep(0)
