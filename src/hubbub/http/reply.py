"""A response, before it is written to a connection."""

from __future__ import annotations

from http import HTTPStatus

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

PIECE = 32 * 1024  # bytes of an answer that are written before it is seen whether the client takes them

JSON = b"application/json"
PROBLEM = b"application/problem+json"
EVENT_STREAM = b"text/event-stream"

# Sent with everything: answers are one user's own, and never anything but what their type says.
NO_SNIFF = b"x-content-type-options: nosniff\r\n"
COMMON_HEADERS = b"cache-control: no-store\r\n" + NO_SNIFF

LAG = b"hubbub-lag: queue\r\n"  # what is acknowledged and not stored yet may be missing from this answer
TRUNCATED = b"hubbub-truncated: true\r\n"  # a search that could not look at all that there is

END = b"\r\n"  # of the fields
CLOSE = b"connection: close\r\n" + END


def lagging(lag: bool) -> bytes:
    """The header of an answer that was made from a lagging read, or none."""
    return LAG if lag else b""


class Reply:
    """``headers`` are lines already encoded, each ending in CRLF. ``fields`` are these with the type and the length."""

    __slots__ = ("body", "content_type", "fields", "headers", "status")

    def __init__(self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b"") -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.fields = b"%bcontent-type: %b\r\ncontent-length: %d\r\n" % (headers, content_type, len(body))

    def head(self, date: bytes, *, close: bool) -> bytes:
        """What is sent before the body. ``date`` is a line of its own."""
        return b"".join((STATUS_LINES[self.status], date, COMMON_HEADERS, self.fields, CLOSE if close else END))

    def encode(self, date: bytes, *, close: bool) -> bytes:
        return self.head(date, close=close) + self.body
