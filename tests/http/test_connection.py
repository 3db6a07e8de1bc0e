"""HTTP on a raw connection."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from openapi_spec_validator import validate

from tests.conftest import Person, Served, eventually


def raw(service: Served, data: bytes, *, ends: bool = False) -> bytes:
    """Send the data and return all answers until the service closes. With ``ends`` the client closes its side first."""
    parts = urlsplit(service.url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def test_pipelined_requests_are_answered_in_order(service: Served, ann: Person) -> None:
    chat = "/api/v1" + ann.chat()
    cookie = f"Cookie: auth_token={ann.cookies['auth_token']}\r\n"
    body = b'{"body":"x"}'
    head = f"POST {chat}/messages HTTP/1.1\r\nHost: x\r\n{cookie}Content-Type: application/json\r\n"
    post = head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = f"GET {chat}/messages HTTP/1.1\r\nHost: x\r\n{cookie}Connection: close\r\n\r\n".encode()
    received = raw(service, post + health + post + post + last)
    assert received.count(b"HTTP/1.1 200 OK") == 5
    positions = [received.index(text) for text in (b'r":1}', b'"ok"', b'r":2}', b'r":3}', b'"messageNumber":3,')]
    assert positions == sorted(positions)


def test_a_client_that_closes_its_side_gets_its_answers(service: Served, ann: Person) -> None:
    chat = "/api/v1" + ann.chat()
    head = f"Host: x\r\nCookie: auth_token={ann.cookies['auth_token']}\r\n"
    json_head = f"{head}Content-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    post = f"POST {chat}/messages HTTP/1.1\r\n{json_head}".encode() + b'{"body":"x"}'
    get = f"GET {chat}/messages/1 HTTP/1.1\r\n{head}\r\n".encode()
    assert b'{"messageNumber":1}' in raw(service, post, ends=True)
    received = raw(service, post + get + post + b"GET /he", ends=True)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.endswith(b'{"messageNumber":3}')


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n", b"413"),
        (
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"fffff\r\n"
            + b"x" * 0xFFFFF,
            b"413",
        ),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", b"400"),
        (
            b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"501",
        ),
    ],
)
def test_a_bad_request_is_refused_and_the_connection_closed(service: Served, data: bytes, status: bytes) -> None:
    received = raw(service, data)
    assert received.startswith(b"HTTP/1.1 " + status), received[:200]
    assert b"application/problem+json" in received


def test_head_has_no_body_and_old_clients_get_a_close(service: Served) -> None:
    received = raw(service, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert received.endswith(b"\r\n\r\n")
    assert b"content-length: 15" in received
    for wish in (b"", b"Connection: keep-alive\r\n"):
        received = raw(service, b"GET /healthz HTTP/1.0\r\n" + wish + b"\r\n")
        assert received.endswith(b'{"status":"ok"}')
        assert b"connection: close" in received


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(service: Served, ann: Person) -> None:
    chat = ann.chat()
    ann.post(f"{chat}/messages", json={"body": "hello"})
    cookie = f"Cookie: auth_token={ann.cookies['auth_token']}\r\n"
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        target = f"/api/v1{chat}/messages/stream?after=0"
        connection.sendall(f"GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n{cookie}\r\n".encode())
        received = b""
        while b'Z"}' not in received:  # the end of the message
            received += connection.recv(65536)
    head, _, events = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert events.startswith(b"retry: 1000\n\nid: 1\nevent: message\ndata: {")


def test_ready_and_document(service: Served) -> None:
    def parts() -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = httpx.get(service.url + "/readyz").json()["parts"]
        return found

    assert {"queue", "store"} <= set(parts())
    eventually(lambda: all(part == {"status": "ok"} for part in parts().values()))  # a new search index takes a moment
    document = httpx.get(service.url + "/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    validate(document)
    assert "x-" not in json.dumps(list(document["paths"]))


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/"])
def test_a_client_that_has_a_document_gets_304(service: Served, path: str) -> None:
    first = httpx.get(service.url + path)
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-cache"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = httpx.get(service.url + path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert httpx.get(service.url + path, headers={"If-None-Match": '"other"'}).content == first.content
