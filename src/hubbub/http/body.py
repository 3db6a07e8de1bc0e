"""Reads a request's body as its bytes arrive, with a length or in chunks (RFC 9112, sections 6 and 7.1)."""

from __future__ import annotations

import re

from hubbub.http.problems import Refused, problem

MAX_BODY = 256 * 1024  # a message of 10,000 characters takes at most 120,000 bytes, with every character escaped
MAX_FRAMING = 16 * 1024  # what chunks take beside their data: sizes, extensions and trailers; some ms to read

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")
_BLANK = b"\r\n"


def too_large() -> Refused:
    return Refused(problem(413, f"The body may have at most {MAX_BODY} bytes."))


class Sized:
    """A body with a length. ``left`` is how many bytes have not arrived yet."""

    __slots__ = ("_gathered", "left")

    def __init__(self, length: int) -> None:
        if length > MAX_BODY:
            raise too_large()
        self.left = length
        self._gathered: bytes | bytearray = b""

    @property
    def size(self) -> int:
        return len(self._gathered)

    @property
    def whole(self) -> bool:
        return not self.left

    def read(self, data: bytes, at: int) -> int:
        """Take what belongs to the body, from ``at`` on; where the rest begins."""
        if not self.left:
            return at
        piece = data[at : at + self.left]
        self.left -= len(piece)
        if self._gathered:
            self._gathered += piece
        else:
            self._gathered = bytearray(piece) if self.left else piece
        return at + len(piece)

    def content(self) -> bytes:
        return bytes(self._gathered)


class Chunked:
    """A body in chunks. Extensions and trailers are read and dropped. A trailer never becomes a header: it could then
    contradict headers that another program has checked already.
    """

    __slots__ = ("_at_line", "_framing", "_gathered", "_left", "_line", "whole")

    def __init__(self) -> None:
        self.whole = False
        self._gathered = bytearray()
        self._framing = 0
        self._left = 0  # bytes still to come of the current chunk's data
        self._line = bytearray()  # the beginning of an incomplete one
        self._at_line = self._size_line

    @property
    def size(self) -> int:
        return len(self._gathered) + len(self._line)

    @property
    def left(self) -> int:
        """How many announced bytes have not arrived yet."""
        return self._left

    def read(self, data: bytes, at: int) -> int:
        """Take what belongs to the body, from ``at`` on; where the rest begins.

        Raises:
            Refused: this is not a chunked body, or it is too large.
        """
        end = len(data)
        while at < end and not self.whole:
            if self._at_line == self._size_line and not self._line:
                at = self._whole_chunks(data, at)
                if at == end:
                    break
            if self._left:
                piece = data[at : at + self._left]
                self._gathered += piece
                self._left -= len(piece)
                at += len(piece)
                continue
            stop = data.find(b"\n", at) + 1
            self._framing += (stop or end) - at
            if self._framing > MAX_FRAMING:
                words = f"Sizes and trailers of chunks may have at most {MAX_FRAMING} bytes. Send larger chunks."
                raise Refused(problem(413, words))
            if not stop:
                self._line += data[at:]
                return end
            line = data[at:stop]
            if self._line:
                line = bytes(self._line) + line
                self._line.clear()
            at = stop
            self._at_line(line)
        return at

    def content(self) -> bytes:
        return bytes(self._gathered)

    def _whole_chunks(self, data: bytes, at: int) -> int:
        """Take the chunks that are complete, valid, and within the limits; the rest is read line by line."""
        framing, gathered = self._framing, self._gathered
        while (found := _SIZE.match(data, at)) is not None:
            begin = found.end()
            end = begin + int(found[1], 16)
            more = begin - at + len(_BLANK)
            if end == begin or data[end : end + 2] != _BLANK or framing + more > MAX_FRAMING:
                break
            if len(gathered) + end - begin > MAX_BODY:
                break
            framing += more
            gathered += data[begin:end]
            at = end + 2
        self._framing = framing
        return at

    def _size_line(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise Refused(problem(400, "A chunk begins with its size in hexadecimal digits."))
        self._left = int(found[1], 16)
        if len(self._gathered) + self._left > MAX_BODY:
            raise too_large()
        self._at_line = self._end_of_chunk if self._left else self._trailer

    def _end_of_chunk(self, line: bytes) -> None:
        if line != _BLANK:
            raise Refused(problem(400, "A chunk is not as long as it says."))
        self._at_line = self._size_line

    def _trailer(self, line: bytes) -> None:
        if line == _BLANK:
            self.whole = True
        elif _TRAILER.fullmatch(line) is None:
            raise Refused(problem(400, "A trailer is not a valid field."))


Body = Sized | Chunked
