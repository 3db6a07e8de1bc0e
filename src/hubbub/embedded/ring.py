"""Records that one process writes into memory, and that others read, each at its own pace: a ring of bytes.

The memory is shared by fork. The writer waits for nobody: it writes over the oldest bytes. ``head`` is how many bytes
were written ever, and is raised after a record is complete. Each record has its position and a checksum. So a reader
that was overtaken finds that out, as does one that sees the head before the record.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

SIZE = 16 * 1024 * 1024  # several of the largest batches, or some seconds of 5,000 posts a second
_HEAD_BYTES = 8
_RECORD = struct.Struct("<QII")  # its position, and the length and the checksum of its content


class Ring:
    """The memory. Make it before the processes are forked; one of them writes."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._memory = memoryview(mmap.mmap(-1, _HEAD_BYTES + size))
        self.head = self._memory[:_HEAD_BYTES].cast("Q")
        self._bytes = self._memory[_HEAD_BYTES:]

    def write(self, content: bytes) -> None:
        """Write a record. One that is longer than the ring overtakes every reader."""
        at = self.head[0]
        record = _RECORD.pack(at, len(content), crc32(content)) + content
        if len(record) > self._size:
            self.head[0] = at + len(record)
            return
        begin = at % self._size
        to_end = self._size - begin
        if len(record) <= to_end:
            self._bytes[begin : begin + len(record)] = record
        else:
            self._bytes[begin:] = record[:to_end]
            self._bytes[: len(record) - to_end] = record[to_end:]
        self.head[0] = at + len(record)

    def read(self, at: int) -> bytes | None:
        """The content of the record at this position, below the head; None if it was overwritten."""
        if self.head[0] - at > self._size:
            return None
        position, length, checksum = _RECORD.unpack(self._slice(at, _RECORD.size))
        if position != at or length > self._size:
            return None
        content = self._slice(at + _RECORD.size, length)
        return content if crc32(content) == checksum else None

    def _slice(self, at: int, length: int) -> bytes:
        begin = at % self._size
        to_end = self._size - begin
        if length <= to_end:
            return bytes(self._bytes[begin : begin + length])
        return bytes(self._bytes[begin:]) + bytes(self._bytes[: length - to_end])


class RingReader:
    """Reads a ring from where its head is when this is made. ``at`` is how far it has read."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self.head = ring.head
        self.at = self.head[0]

    def next(self) -> bytes | None:
        """The next record, which must be there: the head is above ``at``. None if the reader was overtaken: it goes on
        with what is written next, and has missed all before."""
        content = self._ring.read(self.at)
        if content is None:
            self.at = self.head[0]
        else:
            self.at += _RECORD.size + len(content)
        return content


class Shared(NamedTuple):
    """What several processes that serve share with the one that commits: the ring, and for each of them a file, an
    eventfd, that wakes it to read the ring."""

    ring: Ring
    wakers: Sequence[int]
