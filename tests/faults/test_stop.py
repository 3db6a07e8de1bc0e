"""A planned stop: no client is cut off or gets an error, and no client can delay it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import Person, Service, eventually


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that keeps its port when it is restarted."""
    service = Service(tmp_path / "data", port=free_port())
    service.start()
    yield service
    if service.process.poll() is None:
        service.kill()


class Chat:
    """A user's chat, for clients that don't use httpx."""

    def __init__(self, service: Service) -> None:
        with closing(Person(service.url)) as ann:
            self.path = f"/api/v1{ann.chat()}/messages"
            self.headers = {"Cookie": f"auth_token={ann.cookies['auth_token']}", "Content-Type": "application/json"}

    def request(self, method: str, body: bytes = b"", path: str = "") -> bytes:
        lines = [f"{method} {path or self.path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as connection:
        yield connection


def refused(service: Service) -> bool:
    try:
        with connected(service):
            return False
    except ConnectionRefusedError:
        return True


def received(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


def test_clients_that_post_through_restarts_see_no_error(service: Service) -> None:
    chat = Chat(service)
    seen: Counter[str] = Counter()
    acknowledged: list[int] = []
    over = threading.Event()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        while not over.is_set():
            try:
                connection.request("POST", chat.path, b'{"body":"x"}', chat.headers)
                answer = connection.getresponse()
                content = answer.read()
            except ConnectionRefusedError:  # a proxy would use another process
                connection.close()
                seen["refused"] += 1
                time.sleep(0.02)
                continue
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                seen[repr(error)] += 1
                continue
            seen[str(answer.status)] += 1
            if answer.status == 200:
                acknowledged.append(json.loads(content)["messageNumber"])

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        before = seen["200"]
        eventually(lambda before=before: seen["200"] > before + 200)  # type: ignore[misc]
        assert service.stop() == 0
        service.start()
    over.set()
    for thread in threads:
        thread.join()
    print(dict(seen))
    assert set(seen) == {"200", "refused"}
    assert len(set(acknowledged)) == len(acknowledged)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("GET", chat.path.removesuffix("/messages"), headers=chat.headers)
    assert json.loads(connection.getresponse().read())["messagesCount"] == len(acknowledged)
    connection.close()


def test_an_open_connection_gets_one_more_answer_marked_as_the_last(service: Service) -> None:
    chat = Chat(service)
    with connected(service) as hot, connected(service) as slow:
        for connection in (hot, slow):
            connection.sendall(chat.request("GET"))
            assert b"connection: close" not in connection.recv(65536)
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: refused(service), 2)
        hot.sendall(chat.request("POST", b'{"body":"late"}'))
        slow.sendall(chat.request("GET", path="/api/v1/auth/me"))
        for answer in (received(hot), received(slow)):
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close\r\n" in answer
        begun = time.monotonic()
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 2  # once all clients are gone, it does not wait


def test_all_pipelined_requests_are_answered(service: Service) -> None:
    chat = Chat(service)
    with connected(service) as connection:
        connection.sendall(chat.request("GET"))
        connection.recv(65536)
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: refused(service), 2)
        connection.sendall(b"".join(chat.request("POST", b'{"body":"%d"}' % number) for number in range(30)))
        answers = received(connection)
    assert answers.count(b"HTTP/1.1 200 OK") == 30
    assert answers.count(b"connection: close") == 1
    assert answers.index(b"connection: close") > answers.index(b'"messageNumber":29}')
    assert service.process.wait(20) == 0


def test_a_request_that_has_begun_is_finished(service: Service) -> None:
    chat = Chat(service)
    request = chat.request("POST", b'{"body":"slowly"}')
    with connected(service) as connection:
        connection.sendall(request[:-5])
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(4)  # longer than it waits for idle clients
        connection.sendall(request[-5:])
        assert received(connection).startswith(b"HTTP/1.1 200 ")
    assert service.process.wait(20) == 0


def test_idle_connections_are_closed_after_a_moment(service: Service) -> None:
    with connected(service) as connection:
        begun = time.monotonic()
        assert service.stop() == 0
        assert received(connection) == b""
        assert 2 < time.monotonic() - begun < 6


def test_streams_end_at_once(service: Service) -> None:
    chat = Chat(service)
    with connected(service) as connection:
        connection.sendall(chat.request("GET", path=chat.path + "/stream"))
        while b"retry:" not in connection.recv(65536):
            pass
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        rest = received(connection)
        assert b": this process is stopping" in rest
        assert rest.endswith(b"0\r\n\r\n")
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 2


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal_stop_it_too(service: Service, number: signal.Signals) -> None:
    """They reach all processes of the service at once."""
    parts = service.parts()
    assert parts
    for part in parts:
        part.send_signal(number)
    assert service.stop(number) == 0
    assert f"is stopping: {number.name}," in service.log
    assert "has stopped," in service.log


def test_nohup_keeps_it_running_when_the_terminal_is_closed(tmp_path: Path) -> None:
    words = ["nohup", sys.executable, "-m", "hubbub", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{url}/healthz").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_second_signal_ends_it_at_once(service: Service) -> None:
    with connected(service) as connection:
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: refused(service), 2)
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert received(connection) == b""
        service.process.wait(20)
        assert time.monotonic() - begun < 1
