"""Clients that are slow or idle, and the timeouts of connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from hubbub.http import connection
from hubbub.http.connection import Connection
from hubbub.http.edge import Edge
from tests.unit.test_connection import GET, App, connected, edge_for, settled


class NoRoutes:
    def match(self, _method: bytes, _target: bytes) -> Any:
        return None


async def _big(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(200):
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def served(edge: Edge) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    edge.tick()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(edge), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    sweeping = asyncio.create_task(edge.sweep())
    try:
        yield reader, writer
    finally:
        sweeping.cancel()
        writer.close()
        server.close()


async def test_a_request_that_never_ends_gets_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.1)
    async with served(Edge(cast(Any, NoRoutes()), _big)) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408 ")


async def test_what_was_sent_while_the_process_stood_still_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.1)
    async with served(Edge(cast(Any, NoRoutes()), App())) as (reader, writer):
        for _ in range(2):  # it stays open, too
            writer.write(GET)
            time.sleep(1.2)  # noqa: ASYNC251 - the loop stands still
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 10)).startswith(b"HTTP/1.1 200 ")


async def test_a_refused_client_that_keeps_sending_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "DISCARD_S", 0.1)
    edge = Edge(cast(Any, NoRoutes()), _big)
    async with served(edge) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 1000)
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 431 ")
        async with asyncio.timeout(10):
            while edge.connections:
                writer.write(b"a:\r\n")
                await asyncio.sleep(0.01)


async def test_many_that_are_late_together_are_answered_in_several_turns_of_the_loop() -> None:
    edge = edge_for(App())
    late = [connected(App(), edge) for _ in range(500)]
    for protocol, _ in late:
        protocol.data_received(b"GET / HTTP/1.1\r\n")
        protocol.deadline = 0.0

    def answered() -> int:
        return sum(transport.written.startswith(b"HTTP/1.1 408 ") for _, transport in late)

    sweeping, before, most = asyncio.create_task(edge.sweep()), 0, 0
    while answered() < 500:
        await asyncio.sleep(0)
        most, before = max(most, answered() - before), answered()
    sweeping.cancel()
    assert most <= 50


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.1)
    async with served(Edge(cast(Any, NoRoutes()), _big)) as (reader, _):
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SEND_S", 0.1)
    edge = Edge(cast(Any, NoRoutes()), _big)
    async with served(edge) as (_, writer):
        cast(asyncio.ReadTransport, writer.transport).pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            while not edge.connections:
                await asyncio.sleep(0.01)
            while edge.connections or edge.tasks:
                await asyncio.sleep(0.01)


async def test_the_services_own_slowness_is_not_the_clients_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.1)

    async def slow(_scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(2.5)  # the sweep runs twice meanwhile
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(Edge(cast(Any, NoRoutes()), slow)) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("cut", [len(GET), 10])
async def test_a_request_that_came_in_time_and_waits_for_its_turn_is_answered(cut: int) -> None:
    app = App()
    protocol, transport = connected(app)
    protocol.data_received(GET[: len(GET) - cut])
    protocol.edge.turns.spend(1)
    protocol.data_received(GET[len(GET) - cut :])
    protocol.edge.clock = protocol.deadline + 1
    protocol.expire()
    await settled()
    assert transport.written.startswith(b"HTTP/1.1 200 ")
    assert not transport.closed
