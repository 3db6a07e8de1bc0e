"""HTTP/1.1 for the load test: writes requests as bytes and parses responses."""

from __future__ import annotations

from typing import NamedTuple

USUAL = b"HTTP/1.1 200"
UNKNOWN = (0, 0, b"unknown")  # is not what stands between the two places
_LEARNT = 16_384  # bytes of an answer, and so the most heads that are remembered


class BadResponse(Exception):
    """The bytes received are not an HTTP/1.1 response that can be parsed."""


class Heads:
    """Knows the usual answers again, which saves parsing their heads.

    An answer is usual if one of the same length was parsed, both begin with ``USUAL``, and both heads end at the same
    place in the same bytes, from their content-length on. So it is whole, as its body has the same length, too. What
    differs before that has the same length: a date.
    """

    def __init__(self) -> None:
        # By the length of an answer: where its content-length begins, where its body does, and what is between.
        self.known: dict[int, tuple[int, int, bytes]] = {}

    def learn(self, data: bytes, body: bytes) -> None:
        """``data`` was parsed as a whole answer with this body, and the connection stays open."""
        start = len(data) - len(body)
        at = data[:start].lower().find(b"\r\ncontent-length:")
        if at >= 0 and data.startswith(USUAL) and len(data) < _LEARNT:
            self.known[len(data)] = at, start, data[at:start]


class Response(NamedTuple):
    """``end`` is where in the buffer the response ends."""

    status: int
    body: bytes
    close: bool
    end: int


def request(method: str, host: str, path: str, *, cookie: str = "", body: bytes | None = None) -> bytes:
    """A whole request, ready to send."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    if cookie:
        lines.append(f"Cookie: {cookie}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    elif method != "GET":
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def parse(buffer: bytes) -> Response | None:
    """The first response in the buffer; None while it is not whole.

    Raises:
        BadResponse
    """
    split = buffer.find(b"\r\n\r\n")
    if split < 0:
        if len(buffer) > 65536:
            raise BadResponse("head too long")
        return None
    if not buffer.startswith(b"HTTP/1.") or not buffer[9:12].isdigit():
        raise BadResponse("no status line")
    head = buffer[:split].lower() + b"\r\n"
    start = split + 4
    close = b"\r\nconnection: close\r\n" in head
    status = int(buffer[9:12])
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        at += 17
        try:
            end = start + int(head[at : head.index(b"\r\n", at)])
        except ValueError:
            raise BadResponse("bad content-length") from None
        if len(buffer) < end:
            return None
        return Response(status, buffer[start:end], close, end)
    if status in (204, 304):
        return Response(status, b"", close, start)
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        return _chunked(buffer, start, status, close)
    raise BadResponse("neither content-length nor chunks")


def _chunked(buffer: bytes, start: int, status: int, close: bool) -> Response | None:
    body = b""
    while True:
        line = buffer.find(b"\r\n", start)
        if line < 0:
            return None
        try:
            size = int(buffer[start:line].split(b";")[0], 16)
        except ValueError:
            raise BadResponse("bad chunk") from None
        start = line + 2 + size + 2
        if len(buffer) < start:
            return None
        if not size:
            return Response(status, body, close, start)
        body += buffer[line + 2 : line + 2 + size]
