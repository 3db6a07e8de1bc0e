"""Parses bytes into requests, one at a time: heads with httptools, bodies with http.body.

The remaining bytes wait until the caller asks for the next request, so that a client that pipelines is never ahead of
its answers.
"""

from __future__ import annotations

from typing import Any

import httptools

from hubbub.http.body import Body, Chunked, Sized
from hubbub.http.heads import END, Head
from hubbub.http.problems import Refused, problem
from hubbub.http.reply import Reply
from hubbub.http.single import single
from hubbub.http.target import resolved

MAX_HEAD = 32 * 1024
MAX_HEADERS = 128
HEADER_COST = 150  # bytes that a parsed header takes beside its text


class Request:
    """A request. ``refused`` is the answer to one that can't be read to its end; ``raw`` is its head if that came at
    once, and ``known`` is what is remembered of a head that was seen before: ``headers`` is empty then. ``begun`` is
    perf_counter's when it had come. ``version`` is HTTP's.
    """

    __slots__ = (
        "begun",
        "body",
        "headers",
        "keep_alive",
        "known",
        "method",
        "raw",
        "refused",
        "route",
        "span",
        "target",
        "version",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.keep_alive = False
        self.refused: Reply | None = None
        self.raw = b""
        self.known: Head | None = None
        self.begun = 0.0
        self.route = "other"
        self.span: Any = None
        self.version = "1.1"


class _Fields:
    """The fields that httptools finds in a head."""

    __slots__ = ("headers", "heads", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.heads = 0  # that were complete

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) <= MAX_HEADERS:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.heads += 1


class Reader:
    """Reads requests. Invariant: between two requests it keeps nothing, and ``taken`` is 0. Within one, ``taken`` is
    how many bytes of its head have come, and ``expects`` whether its client waits for a 100 Continue before it sends
    the body.
    """

    __slots__ = ("_body", "_fields", "_parser", "_request", "_tail", "expects", "taken")

    def __init__(self) -> None:
        self.expects = False
        self._reset()

    def _reset(self) -> None:
        self.taken = 0
        self._tail = b""
        self._fields: _Fields | None = None
        self._parser: Any = None
        self._request: Request | None = None
        self._body: Body | None = None

    @property
    def size(self) -> int:
        """Bytes that are held of an incomplete request."""
        headers = len(self._fields.headers) if self._fields is not None else 0
        return self.taken + HEADER_COST * headers + (self._body.size if self._body is not None else 0)

    @property
    def announced(self) -> int:
        """Bytes of the body that are still to come, as far as its client has said."""
        return self._body.left if self._body is not None else 0

    def read(self, data: bytes, at: int) -> tuple[Request | None, int]:
        """Take bytes from ``at`` on, at most to the end of a request. Returns the request, if it is complete now, and
        where the rest begins.

        Raises:
            Refused: the request can't be read to its end; what follows has no meaning.
        """
        body = self._body
        if body is None:
            at = self._read_head(data, at)
            body = self._body
            if body is None:
                return None, at
        at = body.read(data, at)
        request = self._request
        if not body.whole or request is None:
            return None, at
        request.body = body.content()
        self._reset()
        return request, at

    def _read_head(self, data: bytes, at: int) -> int:
        fields = self._fields
        if fields is None:
            fields = self._fields = _Fields()
            self._parser = httptools.HttpRequestParser(fields)
        while at < len(data) and self._body is None:
            end, ended = self._end_of_head(data, at)
            piece = data[at : min(end, at + MAX_HEAD - self.taken)]
            self._feed(fields, piece)
            raw = b"" if self.taken else piece
            self.taken += len(piece)
            if fields.heads:
                if not ended or fields.heads > 1:
                    raise _invalid()
                self._head_is_whole(fields, raw)
            elif self.taken == MAX_HEAD:
                raise Refused(problem(431, f"The request line and headers may have at most {MAX_HEAD} bytes."))
            self._tail = b"" if ended else (self._tail + piece[-3:])[-3:]
            at += len(piece)
        return at

    def _end_of_head(self, data: bytes, at: int) -> tuple[int, bool]:
        """The position after the next blank line, which may have begun before; or the end when there is none."""
        found = (self._tail + data[at : at + 3]).find(END) if self._tail else -1
        if found >= 0:
            return at + found + len(END) - len(self._tail), True
        found = data.find(END, at)
        return (found + len(END), True) if found >= 0 else (len(data), False)

    def _feed(self, fields: _Fields, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # handled as if it had not asked for an upgrade (RFC 9110, section 7.8)
        except httptools.HttpParserError:
            raise _invalid() from None
        if len(fields.headers) > MAX_HEADERS:
            raise Refused(problem(431, f"A request may have at most {MAX_HEADERS} headers."))

    def _head_is_whole(self, fields: _Fields, raw: bytes) -> None:
        request = self._request = Request()
        request.raw = raw
        request.method = self._parser.get_method()
        version = request.version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Refused(problem(505, "This service speaks HTTP/1.1 and HTTP/1.0."))
        request.target, headers = resolved(request.method, fields.target, fields.headers, version)
        request.headers = single(headers)
        self._parser = None
        framing, wishes = _NONE, b""
        for name, value in request.headers:
            if name in _FRAMING:  # several lines are one list (RFC 9110, section 5.3)
                framing = {**framing, name: framing[name] + b"," + value if name in framing else value}
            elif name == b"connection":
                wishes += b"," + value.lower()
        options = [option.strip() for option in wishes.split(b",")] if wishes else ()
        # A client of HTTP/1.0 that asks to keep the connection would have to be told that it is kept.
        request.keep_alive = version == "1.1" and b"close" not in options
        self._body = _body_of(framing, version)
        if framing and not self._body.whole and version == "1.1":
            self.expects = framing.get(b"expect", b"").lower() == b"100-continue"


_NONE: dict[bytes, bytes] = {}
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"expect"))


def _body_of(headers: dict[bytes, bytes], version: str) -> Body:
    """The reader of the request's body. httptools has refused ambiguous ones: several lengths, or a length beside a
    coding."""
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        return Sized(int(headers.get(b"content-length", b"0")))
    if version == "1.0" or b"content-length" in headers:
        raise _invalid()
    if coding.lower() != b"chunked":
        raise Refused(problem(501, "The only transfer coding that works is chunked."))
    return Chunked()


def _invalid() -> Refused:
    return Refused(problem(400, "This is not a valid HTTP/1.1 request."))
