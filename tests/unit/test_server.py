"""Listening in several processes on one address, and stopping them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from hubbub.http.server import PortTaken, listen, listen_shared
from tests.conftest import eventually

# Listening -----------------------------------------------------------------------------------------------------------


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0, count: int = 4) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(each) for each in listen_shared(host, port, count)]


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def waiting(listener: socket.socket) -> int:
    """Accept and close the clients that wait, and return how many there were."""
    listener.setblocking(False)
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_clients_of_one_address_are_spread_over_all_sockets(host: str) -> None:
    with listening(host) as listeners, ExitStack() as stack:
        assert len({each.getsockname() for each in listeners}) == 1
        for _ in range(200):
            stack.enter_context(socket.create_connection((host, port_of(listeners[0])), timeout=10))
        counts = [waiting(each) for each in listeners]
        assert sum(counts) == 200
        assert min(counts) > 0
        listeners[0].close()
        for _ in range(50):
            stack.enter_context(socket.create_connection((host, port_of(listeners[1])), timeout=10))
        assert sum(waiting(each) for each in listeners[1:]) == 50


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - it must be refused
@pytest.mark.parametrize("count", [1, 2])
def test_another_service_on_a_shared_address_is_refused(host: str, count: int) -> None:
    with listening() as listeners, pytest.raises(PortTaken, match="Address already in use"):
        listen_shared(host, port_of(listeners[0]), count)


def test_a_shared_address_is_refused_while_another_service_has_it() -> None:
    with closing(listen("127.0.0.1", 0)) as alone:
        alone.listen()
        with pytest.raises(PortTaken):
            listen_shared("127.0.0.1", port_of(alone), 2)


def test_two_services_that_start_at_once_do_not_share_an_address() -> None:
    """Both have bound it, and the other one listens first."""
    with closing(listen("127.0.0.1", 0)) as later, listening(port=port_of(later)), pytest.raises(OSError):
        later.listen()


def test_an_address_is_free_again_once_all_sockets_are_closed() -> None:
    with listening() as listeners:
        port = port_of(listeners[0])
        with pytest.raises(PortTaken):
            listen_shared("127.0.0.1", port, 2)
    with listening(port=port), pytest.raises(PortTaken):
        listen("127.0.0.1", port)


def test_one_process_shares_its_address_with_none() -> None:
    with listening(count=1) as (alone,):
        assert not alone.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(alone.getsockname(), timeout=10)


# Stopping ------------------------------------------------------------------------------------------------------------


class Server:
    """A tests.unit.small_server with this listening socket, and this other file."""

    def __init__(self, listener: socket.socket, told: socket.socket | None = None) -> None:
        self._address = listener.getsockname()
        files = [each.fileno() for each in (listener, told) if each is not None]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.small_server", *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=files,
        )
        listener.close()
        if told is not None:
            told.close()

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, path: str) -> socket.socket:
        client = socket.create_connection(self._address, timeout=20)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client

    def refuses(self) -> bool:
        try:
            self.ask("/").close()
        except ConnectionRefusedError:
            return True
        return False

    def end(self) -> tuple[int, str, str]:
        """Its status, what it said last, and its log. A request that is held is answered now."""
        said, log = self.process.communicate("x", timeout=20)
        return self.process.returncode, said, log


@contextmanager
def server(*files: socket.socket) -> Iterator[Server]:
    running = Server(*files)
    with running.process:
        yield running
        running.process.kill()


@pytest.mark.parametrize("closed", ["whole", "half"])
def test_a_server_that_is_told_to_stop_finishes_its_answers_and_ends(closed: str) -> None:
    ours, theirs = socket.socketpair()
    with server(listen("127.0.0.1", 0), theirs) as running, ours:
        assert running.said() == "started"
        for number in (signal.SIGTERM, signal.SIGINT):
            running.process.send_signal(number)
        with running.ask("/held") as held:
            assert running.said() == "held"
            with running.ask("/") as client:
                assert b"\r\nwell" in client.recv(65536)
            if closed == "whole":
                ours.close()
            else:
                ours.shutdown(socket.SHUT_WR)
            eventually(running.refuses)
            assert running.process.poll() is None
            status, said, log = running.end()
            answer = held.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        assert (status, said) == (0, "finished\n")
        assert "is stopping: the first process, process" in log
        assert "has stopped, process" in log


def test_the_first_server_says_when_it_begins_to_stop() -> None:
    with server(listen("127.0.0.1", 0)) as running:
        assert running.said() == "started"
        with running.ask("/held") as held:
            assert running.said() == "held"
            running.process.send_signal(signal.SIGTERM)
            assert running.said() == "stopping"
            status, said, log = running.end()
            assert held.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert (status, said) == (0, "finished\n")
        assert "is stopping: SIGTERM, process" in log


def test_a_server_that_cannot_start_ends_with_an_error() -> None:
    ours, theirs = socket.socketpair()
    useless, _ = socket.socketpair()  # can't listen
    with server(useless, theirs) as running, ours:
        status, said, log = running.end()
        assert status == 1
        assert "started" not in said
        assert "OSError" in log
