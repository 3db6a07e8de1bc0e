"""Commits the commands that the queue sends, in a process of its own (embedded.child).

Group commit: the next batch gathers in the socket while one is written to disk. So the busier the service is, the more
requests share the cost of a commit, and an idle service answers after a single commit.

Invariants: commands are applied in the order in which they come; an outcome is sent only after the commit that has its
command, and outcomes are sent in the same order. docs/decisions/0008-processes.md says why nothing is lost.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from hubbub.chat.commands import Command, EditMessage, Outcome, PostMessage
from hubbub.chat.user_bytes import SERVICE
from hubbub.embedded.child import Sender
from hubbub.embedded.frames import Frames, Logged, Unsound, packed
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.writer import Writer
from hubbub.measures import waited_s

MAX_BATCH = 1000
MAX_BATCH_BYTES = 4 * 1024 * 1024
_OVERHEAD = 500  # bytes a command costs beside its body
_READ = 64 * 1024  # a larger buffer is mapped and unmapped each time


class Indexed(msgspec.Struct, tag=True, array_like=True):
    """The index has durably stored all changes up to the position, see SqliteStore.indexed."""

    position: int


class Stored(msgspec.Struct, tag=True, array_like=True):
    """The outcomes of the next commands, and what was measured: the times (ns since 1970) of the commit, and the age of
    its oldest command. ``faults`` says why the writer and the store take no writes now, None for each that does.
    """

    outcomes: list[int | bytes | None]
    faults: tuple[str | None, str | None]
    begun_ns: int = 0
    ended_ns: int = 0
    age_s: float = 0.0
    retries: int = 0
    dead: int = 0


Sent: TypeAlias = Command | Indexed | Unsound
Answer: TypeAlias = Stored | Logged


def owed(command: Command) -> tuple[int, int]:
    """The id of the user that the command counts against, and how many bytes it costs."""
    if type(command) is PostMessage:
        return command.sender_id, _OVERHEAD + command.body.__sizeof__()
    if type(command) is EditMessage:
        return command.editor_id, _OVERHEAD + command.body.__sizeof__()
    return SERVICE, _OVERHEAD


def commit(channel: socket.socket, database: Path) -> None:
    """Commit what comes on the socket until the other end is closed. The database must have the current schema."""
    store = SqliteStore(database)
    try:
        Committer(channel, Writer(store)).run()
    finally:
        store.close()


class Committer:
    """Applies what comes on the socket, with the writer, until the other end is closed."""

    def __init__(
        self,
        channel: socket.socket,
        writer: Writer,
        *,
        max_batch: int = MAX_BATCH,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        housekeeping_s: float = 1.0,
    ) -> None:
        self._channel = channel
        self._sender = Sender(channel)
        self._writer = writer
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._housekeeping_s = housekeeping_s
        self._frames = Frames()
        self._decode = msgspec.msgpack.Decoder(list[Sent]).decode
        self._waiting: deque[Command] = deque()
        self._open = True
        self._faults: tuple[str | None, str | None] = None, None

    def run(self) -> None:
        last = time.monotonic()
        while self._open or self._waiting:
            self._receive()
            if self._waiting:
                self._commit(self._batch())
            if time.monotonic() - last >= self._housekeeping_s:
                self._housekeep()
                last = time.monotonic()
        self._housekeep()

    def _receive(self) -> None:
        """Take what has come. Wait for it if no command waits, until it is time for housekeeping."""
        if not self._waiting:
            select.select([self._channel], [], [], self._housekeeping_s)
        try:
            while self._open and len(self._waiting) < self._max_batch:
                data = self._channel.recv(_READ, socket.MSG_DONTWAIT)
                self._open = bool(data)
                for content in self._frames.take(data):
                    self._take(self._decode(content))
                if len(data) < _READ:  # nothing more has come
                    return
        except BlockingIOError:
            pass

    def _take(self, sent: Sequence[Sent]) -> None:
        for each in sent:
            if isinstance(each, Indexed):
                self._writer.store.indexed(each.position)
            elif isinstance(each, Unsound):
                self._writer.store.unsound(each.fault)
            else:
                self._waiting.append(each)

    def _batch(self) -> list[Command]:
        """The commands that are committed together; the last one may exceed the bound of bytes."""
        batch: list[Command] = []
        size = 0
        while self._waiting and len(batch) < self._max_batch and size < self._max_batch_bytes:
            command = self._waiting.popleft()
            batch.append(command)
            size += owed(command)[1]
        return batch

    def _commit(self, batch: Sequence[Command]) -> None:
        begun_ns = time.time_ns()
        outcomes = self._writer.apply(batch)
        self._answer(outcomes, begun_ns, time.time_ns(), waited_s(batch[0]))

    def _housekeep(self) -> None:
        self._writer.housekeep()
        if self._faults != self._writer.faults:
            self._answer([])

    def _answer(self, outcomes: Sequence[Outcome], begun_ns: int = 0, ended_ns: int = 0, age_s: float = 0.0) -> None:
        self._faults, writer = self._writer.faults, self._writer
        self._sender.send(
            Stored(packed(outcomes), self._faults, begun_ns, ended_ns, age_s, writer.retries, writer.dead)
        )
