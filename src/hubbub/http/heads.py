"""A cache of request heads, byte for byte: a client sends the same few heads again and again, and parsing one costs
more than handling most requests.

A head is cached only if its meaning depends on its bytes alone: it was parsed completely, is of a hot route, has a
length for its body or no body, and asks for no other framing. So at the beginning of a request the same bytes mean the
same.
"""

from __future__ import annotations

from typing import NamedTuple

from hubbub.http.hot_routes import Match
from hubbub.http.shortcuts import Shortcut

_LONGEST = 4096
_MOST_BYTES = 4 * 1024 * 1024
_OVERHEAD = 800  # bytes that a head costs beside its own
_COPIES = 3  # of its bytes: as they came, in its headers, and what its session is remembered by
_PER_HEADER = 130  # bytes that each of its headers costs, parsed, beside their text
END = b"\r\n\r\n"

# What changes the framing or asks for an answer of its own, and what is another with each request.
_NEVER = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"te", b"traceparent", b"idempotency-key"))


class Head(NamedTuple):
    """A parsed head. ``length`` is the body's. ``headers`` has lower-case names. ``series`` is the histogram's for
    requests with this head that are answered well.
    """

    method: bytes
    headers: dict[bytes, bytes]
    match: Match
    length: int
    target: bytes
    shortcut: Shortcut | None
    series: tuple[str, int]


def head_of(data: bytes) -> bytes:
    """The head at the beginning of a request's bytes; empty when it is incomplete."""
    at = data.find(END)
    return data[: at + 4] if at >= 0 else b""


class Heads:
    """The cached heads, limited by their bytes: when there are too many, all are dropped."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self._bytes = 0
        self.get = self._known.get

    def learn(
        self,
        raw: bytes,
        method: bytes,
        headers: list[tuple[bytes, bytes]],
        match: Match,
        shortcut: Shortcut | None = None,
    ) -> None:
        """Cache the head and its parsed form, if its meaning depends on its bytes alone. Call it only if the connection
        continues after the request."""
        if raw in self._known:  # its body came later, or another request behind it
            return
        lines = raw.count(b"\n")
        if len(raw) > _LONGEST or lines != len(headers) + 2 or lines != raw.count(b"\r\n"):
            return
        if not raw.startswith(method + b" /"):  # blank lines may come first, or the target be a whole URL
            return
        by_name = dict(headers)
        if len(by_name) != len(headers) or not _NEVER.isdisjoint(by_name):
            return
        if by_name.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return
        length = by_name.get(b"content-length", b"0")
        if not length.isdigit():
            return
        size = _OVERHEAD + _COPIES * len(raw) + _PER_HEADER * len(headers)
        self._bytes += size
        if self._bytes > _MOST_BYTES:
            self._known.clear()
            self._bytes = size
        self._known[raw] = Head(method, by_name, match, int(length), raw.split(b" ", 2)[1], shortcut, (match[3], 200))
