"""With many hostile clients at once, the service's memory stays bounded, and all other clients are served."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from urllib.parse import urlsplit

import pytest

from tests.abuse.hostile import WAYS, largest_file
from tests.conftest import Person, Service

MOST_BYTES = 512 * 1024 * 1024


def attacked(stack: ExitStack, service: Service, data: bytes, count: int) -> Iterator[socket.socket]:
    """Open this many connections. Each sends as much of ``data`` as the service accepts, and reads nothing."""
    parts = urlsplit(service.url)
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
        connection.setblocking(False)
        at = 0
        with suppress(BlockingIOError, ConnectionError):
            while at < len(data):
                at += connection.send(data[at : at + 65536])
        yield connection


@pytest.mark.parametrize("way", WAYS)
def test_memory_is_bounded_whatever_clients_do(own_service: Service, way: Callable[[bytes], bytes]) -> None:
    data = way(largest_file(own_service.url))
    with ExitStack() as stack, closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        for number, _ in enumerate(attacked(stack, own_service, data, 400)):
            if number % 20 == 0:
                assert own_service.memory() < MOST_BYTES
        for _ in range(20):
            assert ann.post(f"{chat}/messages", json={"body": "x"}).status_code == 200
            assert own_service.memory() < MOST_BYTES
        print(f"{way.__name__}: {own_service.memory() / 1e6:.0f} MB")


def test_memory_is_bounded_when_lists_are_not_read(own_service: Service) -> None:
    parts = urlsplit(own_service.url)
    with ExitStack() as stack, closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        for _ in range(100):
            assert ann.post(f"{chat}/messages", json={"body": "\u2014" * 10_000}).status_code == 200
        for query in ("limit=100", "limit=100&page=1"):
            path = f"/api/v1{chat}/messages?{query}"
            assert len(ann.get(path.removeprefix("/api/v1")).content) > 3_000_000
            data = f"GET {path} HTTP/1.1\r\nHost: x\r\nCookie: auth_token={ann.cookies['auth_token']}\r\n\r\n".encode()
            for number in range(400):
                connection = stack.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(20)
                connection.connect((parts.hostname, parts.port))
                connection.sendall(data)
                with suppress(ConnectionError):  # some are cut off
                    assert connection.recv(12) in (b"HTTP/1.1 200", b"")
                if number % 20 == 0:
                    assert ann.get(f"{chat}/messages?limit=1").status_code == 200
                    assert own_service.memory() < MOST_BYTES
        print(f"unread lists: {own_service.memory() / 1e6:.0f} MB")
