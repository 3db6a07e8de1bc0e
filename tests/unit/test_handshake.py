"""Clients that connect to a service with TLS and send nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from hubbub.http.acceptor import Acceptor
from hubbub.http.edge import Edge
from hubbub.http.handshake import Handshake, Handshakes
from hubbub.http.server import listen
from hubbub.http.shares import Share
from tests.unit.test_connection import GET, App, edge_for

PLACES = 20


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "certificate.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", *files],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    return context


class Client:
    """A client that has completed its TLS handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def of(cls, port: int) -> Client:
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=trusting))

    async def is_answered(self) -> bool:
        self._writer.write(GET)
        answer = await self._reader.readuntil(b"\r\n\r\nok")
        return answer.startswith(b"HTTP/1.1 200 ")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def waiting(edge: Edge) -> list[Handshake]:
    return [each for each in edge.connections if isinstance(each, Handshake)]


def test_a_silent_client_gives_way_and_is_closed_in_time(context: ssl.SSLContext) -> None:
    async def scene() -> None:
        edge = edge_for(App())
        edge._places = Share(PLACES, PLACES)
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        acceptor = Acceptor(listener, 100, Handshakes(edge, context).take)
        idle = await Client.of(port)
        assert await idle.is_answered()
        with ExitStack() as stack:
            silent = []
            for _ in range(5 * PLACES):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                silent.append(client)
                await asyncio.sleep(0)
            await until(lambda: len(edge.tasks) == PLACES - 1 and len(waiting(edge)) == PLACES - 1)
            assert len(edge.connections) == PLACES
            newcomer = await Client.of(port)
            assert await newcomer.is_answered()
            assert await idle.is_answered()
            for each in waiting(edge):
                each.expire()
            await until(lambda: len(edge.connections) == 2 and not edge.tasks)
            assert edge._places.used == 2
            loop = asyncio.get_running_loop()
            for client in silent:
                client.setblocking(False)
                assert await loop.sock_recv(client, 1) == b"", "its connection is closed"
        assert await newcomer.is_answered()
        acceptor.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


def test_a_client_that_does_not_speak_tls_is_closed(context: ssl.SSLContext) -> None:
    async def scene() -> None:
        edge = edge_for(App())
        listener = listen("127.0.0.1", 0)
        acceptor = Acceptor(listener, 100, Handshakes(edge, context).take)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(GET)
        await reader.read()
        await until(lambda: not edge.connections and not edge.tasks)
        acceptor.stop()
        writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())
