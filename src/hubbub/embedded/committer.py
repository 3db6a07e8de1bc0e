"""Commits the commands that the queues send, in a process of its own (embedded.child).

Group commit: the next batch gathers in the sockets while one is written to disk. So the busier the service is, the more
requests share the cost of a commit, and an idle service answers after a single commit. When several commands wait, a
commit begins PACE_S after the one before it at the earliest, so that more share it; sooner if, by how many came until
the last one, enough have come by then. Who sends one after another waits for nothing.

Invariants: commands of one process are applied in the order in which they come; an outcome is sent only after the
commit that has its command, and outcomes are sent in the same order. Where several processes serve, all find what a
commit has done in the ring before any of them is sent an outcome of it. docs/decisions/0008-processes.md says why
nothing is lost, and why no process shows less than another has acknowledged.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from hubbub.chat.commands import Command, EditMessage, PostMessage
from hubbub.chat.errors import ChatError
from hubbub.chat.user_bytes import SERVICE
from hubbub.embedded.child import Sender
from hubbub.embedded.frames import Frames, Logged, Unsound, frame, packed
from hubbub.embedded.ring import Shared
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.writer import Writer
from hubbub.measures import waited_s

MAX_BATCH = 1000
MAX_BATCH_BYTES = 4 * 1024 * 1024
PACE_S = 0.005  # about what a commit takes on a disk; a longer one adds to what the slowest requests take
_SEVERAL = 4
_ENOUGH = 24  # more that share a commit save little each, and let their clients wait
_OVERHEAD = 500  # bytes a command costs beside its body
_READ = 64 * 1024  # a larger buffer is mapped and unmapped each time


class Indexed(msgspec.Struct, tag=True, array_like=True):
    """The index has durably stored all changes up to the position, see SqliteStore.indexed."""

    position: int


class Stored(msgspec.Struct, tag=True, array_like=True):
    """The outcomes of the next commands of the process that gets this. ``first`` is how many of its commands had
    outcomes before. ``faults`` says why the writer and the store take no writes now, None for each that does.

    What was measured: the times (ns since 1970) of the commit, and the age of its oldest command. The first process
    also gets how many commands of all processes it stored.
    """

    first: int
    outcomes: list[int | bytes | None]
    faults: tuple[str | None, str | None]
    begun_ns: int = 0
    ended_ns: int = 0
    age_s: float = 0.0
    retries: int = 0
    dead: int = 0
    stored: int = 0


class Batch(msgspec.Struct, array_like=True):
    """A record of the ring: the commands of a commit, their outcomes, and the process that each came from. ``firsts``
    has for each process how many of its commands had outcomes before. Times: see Stored.
    """

    firsts: list[int]
    origins: bytes
    outcomes: list[int | bytes | None]
    commands: list[msgspec.Raw]
    begun_ns: int
    ended_ns: int


Sent: TypeAlias = Command | Indexed | Unsound
Answer: TypeAlias = Stored | Logged


def owed(command: Command) -> tuple[int, int]:
    """The id of the user that the command counts against, and how many bytes it costs."""
    if type(command) is PostMessage:
        return command.sender_id, _OVERHEAD + command.body.__sizeof__()
    if type(command) is EditMessage:
        return command.editor_id, _OVERHEAD + command.body.__sizeof__()
    return SERVICE, _OVERHEAD


def commit(channels: Sequence[socket.socket], database: Path, shared: Shared | None) -> None:
    """Commit what comes on the sockets until the other ends are closed. The database must have the current schema."""
    store = SqliteStore(database)
    try:
        Committer(channels, Writer(store), shared).run()
    finally:
        store.close()


class _Serving:
    """A process that serves, as the committer sees it. ``open`` until its end of the socket is closed. ``taken`` counts
    its commands, and ``answered`` those that have outcomes."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.frames = Frames()
        self.open = True
        self.taken = 0
        self.answered = 0
        self._unsent = bytearray()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, answer: Stored) -> None:
        """Send it; what the process does not take now waits for ``flush``. A process that takes nothing sends nothing
        more either, so that this is bounded by what its queue may hold.
        """
        self._unsent += frame(msgspec.msgpack.encode(answer))
        self.flush()

    def flush(self) -> None:
        try:
            sent = self.channel.send(self._unsent, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # it has ended, and so does the service
            sent = len(self._unsent)
        del self._unsent[:sent]

    def close(self) -> None:
        """Close our end once all is answered: the process waits for that."""
        if not self.open and self.answered == self.taken and not self._unsent:
            self.channel.close()


class _First(_Serving):
    """The first process, which has this process's log too, on the same socket. So an answer is sent as a whole, and
    only when the system says that the socket takes more: then three quarters of its buffer are free, some 150 KB.

    It is told of every commit. While it takes nothing, one answer that waits has the figures of all of them.
    """

    def __init__(self, channel: socket.socket) -> None:
        super().__init__(channel)
        self._sender = Sender(channel)
        self._answers: deque[Stored] = deque()

    @property
    def has_unsent(self) -> bool:
        return bool(self._answers)

    def send(self, answer: Stored) -> None:
        stored = answer.stored
        if self._answers and not answer.outcomes and not self._answers[-1].outcomes:
            stored += self._answers.pop().stored
        self._answers.append(replace(answer, stored=stored))
        self.flush()

    def flush(self) -> None:
        while self._answers and select.select([], [self.channel], [], 0)[1]:
            self._sender.send(self._answers.popleft())


class _Source(NamedTuple):
    """Where a command came from, and how it was encoded."""

    origin: int
    encoded: bytes


class Committer:
    """Applies what comes on the sockets, with the writer, until the other ends are closed. The first socket's process
    gets what was measured."""

    def __init__(
        self,
        channels: Sequence[socket.socket],
        writer: Writer,
        shared: Shared | None = None,
        *,
        max_batch: int = MAX_BATCH,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        housekeeping_s: float = 1.0,
        pace_s: float = PACE_S,
    ) -> None:
        self._serving = [_First(channels[0]), *map(_Serving, channels[1:])]
        self._writer = writer
        self._shared = shared
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._housekeeping_s = housekeeping_s
        self._pace_s = pace_s
        self._begun = 0.0  # the latest commit, monotonic
        self._wait_s = pace_s  # between two commits, if several commands wait for the second
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Sent]).decode
        self._split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
        self._decode_one = msgspec.msgpack.Decoder(Sent).decode
        self._waiting: deque[Command] = deque()
        self._sources: deque[_Source] = deque()  # of each that waits, where several processes serve
        self._turn = 0
        self._faults: tuple[str | None, str | None] = None, None

    def run(self) -> None:
        last = time.monotonic()
        while self._waiting or any(each.open or each.has_unsent for each in self._serving):
            self._receive()
            if self._waiting:
                self._gather()
                self._commit(self._batch())
            for each in self._serving[1:]:
                each.close()
            if time.monotonic() - last >= self._housekeeping_s:
                self._housekeep()
                last = time.monotonic()
        self._housekeep()

    def _receive(self) -> None:
        """Take what has come. Wait for it if no command waits, until it is time for housekeeping."""
        unsent = [each for each in self._serving if each.has_unsent]
        if not self._waiting:
            open_ = [each.channel for each in self._serving if each.open]
            select.select(open_, [each.channel for each in unsent], [], self._housekeeping_s)
        for each in unsent:
            each.flush()
        self._turn += 1
        for place in range(len(self._serving)):  # each is first in turn: one may send more than a batch takes
            origin = (self._turn + place) % len(self._serving)
            if self._serving[origin].open:
                self._receive_from(origin, self._serving[origin])

    def _gather(self) -> None:
        """Wait until it is time for the next commit, if several commands wait for it."""
        early = self._begun + self._wait_s - time.monotonic()
        if early > 0 and _SEVERAL <= len(self._waiting) < self._max_batch:
            time.sleep(early)
            self._receive()
        now = time.monotonic()
        self._wait_s = min(self._pace_s, (now - self._begun) * _ENOUGH / len(self._waiting))
        self._begun = now

    def _receive_from(self, origin: int, serving: _Serving) -> None:
        try:
            while serving.open and len(self._waiting) < self._max_batch:
                data = serving.channel.recv(_READ, socket.MSG_DONTWAIT)
                serving.open = bool(data)
                for content in serving.frames.take(data):
                    self._take(origin, content)
                if len(data) < _READ:  # nothing more has come
                    return
        except BlockingIOError:
            pass

    def _take(self, origin: int, content: bytes) -> None:
        if self._shared is None:
            for each in self._decode(content):
                self._take_one(each)
        else:
            for encoded in self._split(content):
                if self._take_one(self._decode_one(encoded)):
                    self._sources.append(_Source(origin, bytes(encoded)))
                    self._serving[origin].taken += 1

    def _take_one(self, sent: Sent) -> bool:
        """Whether it is a command, which then waits."""
        if isinstance(sent, Indexed):
            self._writer.store.indexed(sent.position)
        elif isinstance(sent, Unsound):
            self._writer.store.unsound(sent.fault)
        else:
            self._waiting.append(sent)
            return True
        return False

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
        ended_ns = time.time_ns()
        stored = len(batch) - sum(isinstance(outcome, ChatError) for outcome in outcomes)
        answer = Stored(0, [], self._writer.faults, begun_ns, ended_ns, waited_s(batch[0]))
        sources = [self._sources.popleft() for _ in batch] if self._shared is not None else ()
        self._answer(sources, packed(outcomes), answer, stored)

    def _housekeep(self) -> None:
        self._writer.housekeep()
        if self._faults != self._writer.faults:
            self._answer((), [], Stored(0, [], self._writer.faults), 0)

    def _answer(
        self, sources: Sequence[_Source], outcomes: list[int | bytes | None], answer: Stored, stored: int
    ) -> None:
        """Tell the processes. First the ring gets all, so that a process which has its outcomes can rely on it: the
        others have them too."""
        answer.retries, answer.dead = self._writer.retries, self._writer.dead
        to_all = self._faults != answer.faults
        self._faults = answer.faults
        of_each = [outcomes]
        if len(self._serving) > 1:
            of_each = [[] for _ in self._serving]
            for source, outcome in zip(sources, outcomes, strict=True):
                of_each[source.origin].append(outcome)
        if self._shared is not None and stored:
            firsts = [serving.answered for serving in self._serving]
            origins = bytes(source.origin for source in sources)
            encoded = [msgspec.Raw(source.encoded) for source in sources]
            record = Batch(firsts, origins, outcomes, encoded, answer.begun_ns, answer.ended_ns)
            self._shared.ring.write(self._encode(record))
        for origin, serving in enumerate(self._serving):
            if origin == 0 or of_each[origin] or to_all:
                answer.first, answer.outcomes = serving.answered, of_each[origin]
                answer.stored = 0 if origin else stored
                serving.answered += len(answer.outcomes)
                serving.send(answer)
            elif self._shared is not None and stored:
                os.eventfd_write(self._shared.wakers[origin], 1)
