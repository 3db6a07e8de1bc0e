"""The queue of the embedded mode: a bounded list of commands, which another process commits (embedded.committer).

The commands of one turn of the event loop are sent together, at once: what gathers while a batch is written to disk is
the next batch.

Where several processes serve, each reads in the ring what all of them have changed (``catch_up``), its own commands
among them: their outcomes come from there or from the committer's answer, whichever is read first.

Invariants: commands are sent in the order of ``accept``; every accepted ticket is resolved exactly once, on the event
loop, in that order (except that the outcomes of a stretch of the ring that was missed may come later); ``changes``
hears of each command that was carried out once, in the order of the commits, before any ticket of the same or a later
commit is resolved;
the held commands, in all and of one user, stay within the bounds, because ``accept`` refuses commands that would exceed
them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from time import monotonic
from typing import Protocol, TypeAlias

import msgspec

from hubbub.chat.commands import Command, Outcome
from hubbub.chat.errors import ChatError, Unavailable
from hubbub.chat.ticket import Ticket
from hubbub.chat.user_bytes import UserBytes
from hubbub.embedded.child import Channel, end_with, write_log
from hubbub.embedded.committer import Answer, Batch, Indexed, Stored, owed
from hubbub.embedded.frames import Unsound, array, unpacked
from hubbub.embedded.ring import RingReader, Shared
from hubbub.measures import WriteMeasures
from hubbub.tracing import Tracing

log = logging.getLogger("hubbub.queue")

_SILENT_S = 10.0  # without an outcome while commands wait; a commit takes some milliseconds


class Changes(Protocol):
    """Hears of what is committed."""

    def applied(self, command: Command, outcome: Outcome) -> None:
        """The command was carried out, for this process or for another."""

    def missed(self) -> None:
        """Commands were carried out that this process has not heard of."""


# A ticket that waits, its user, the bytes that count against the user, and those held in memory.
_Waiting: TypeAlias = tuple[Ticket, int, int, int]


class EmbeddedQueue:
    """The queue of the embedded mode, see chat.ports.Queue. It belongs to the event loop in which it is created.

    ``fault`` says why the latest batch could not be stored, or that no outcome comes; ``store_fault`` why the store
    takes no writes at all. Each is None when all is well. ``number`` is that of this process among those that share the
    ring.
    """

    def __init__(
        self,
        changes: Changes,
        shared: Shared | None = None,
        number: int = 0,
        *,
        max_commands: int = 20_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_user_bytes: int = 1024 * 1024,
        tracing: Tracing | None = None,
    ) -> None:
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._tracing = tracing
        self._channel = Channel("commit", self._take)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Answer).decode
        self._loop = asyncio.get_running_loop()
        self._changes = changes
        self._number = number
        self._waker = shared.wakers[number] if shared is not None else None
        self._reader = RingReader(shared.ring) if shared is not None else None
        self._decode_batch = msgspec.msgpack.Decoder(Batch).decode
        self._decode_command = msgspec.msgpack.Decoder(Command).decode
        self._waiting: deque[_Waiting] = deque()
        self._answered = 0  # how many commands have left ``_waiting``
        # Tickets whose outcome was in a stretch of the ring that was missed, each with its place among all commands.
        self._late: deque[tuple[int, Ticket]] = deque()
        self._to_resolve: deque[tuple[Ticket, Outcome]] = deque()
        self._resolving = False
        self._traced: list[Command] = []
        self._to_send: list[bytes] = []
        self._closed = False
        self._bytes = 0
        self._of_users = UserBytes(max_user_bytes)
        self.accepted = 0
        self.measures = WriteMeasures()
        self._heard_at = 0.0  # since when the first of the waiting commands may be under way
        self._fault: str | None = None
        self.store_fault: str | None = None

    async def connect(self, channel: socket.socket) -> None:
        """Send to a Committer, which has the other end of the socket."""
        await self._channel.connect(channel)
        if self._waker is not None:
            self._loop.add_reader(self._waker, self._woken, self._waker)

    @property
    def fault(self) -> str | None:
        if self._waiting and monotonic() - self._heard_at > _SILENT_S:
            return f"The process that commits has not answered for {monotonic() - self._heard_at:.0f} s."
        return self._fault

    @property
    def depth(self) -> int:
        return len(self._waiting)

    def accept(self, command: Command) -> Ticket:
        encoded = self._encode(command)
        user_id, size = owed(command)
        held = size + len(encoded)  # while the process that commits takes nothing, this waits in the socket's buffer
        if len(self._waiting) >= self._max_commands or self._bytes + held > self._max_bytes:
            raise Unavailable("The write queue is full. Nothing was stored; send it again a little later.")
        if self._closed:
            raise Unavailable("The service is shutting down. Nothing was stored; send it again a little later.")
        self._of_users.take(user_id, size)
        self._bytes += held
        self.accepted += 1
        ticket = Ticket(command)
        if not self._waiting:
            self._heard_at = monotonic()
        self._waiting.append((ticket, user_id, size, held))
        self._send_soon(encoded)
        return ticket

    def indexed(self, position: int) -> None:
        """Pass on that the index has durably stored all changes up to the position."""
        self._send_soon(self._encode(Indexed(position)))

    def unsound(self, fault: str) -> None:
        """Pass on that the database is not usable: what is accepted from now on is refused."""
        self._send_soon(self._encode(Unsound(fault)))

    async def close(self) -> None:
        """Refuse new commands, and wait for the outcomes of the accepted ones."""
        if not self._closed:
            self._closed = True
            self._send()
        await self._channel.close()
        if self._waker is not None:
            self._loop.remove_reader(self._waker)
        if self._waiting or self._late:
            end_with("commit")

    def _send_soon(self, encoded: bytes) -> None:
        """Send it with all others of this turn of the loop; nothing is sent any more once the queue is closed."""
        if self._closed:
            return
        if not self._to_send:
            self._loop.call_soon(self._send)
        self._to_send.append(encoded)

    def _send(self) -> None:
        if self._to_send:
            to_send, self._to_send = self._to_send, []
            self._channel.send(array(to_send))

    def _take(self, content: bytes) -> None:
        answer = self._decode(content)
        if isinstance(answer, Stored):
            self._stored(answer)
        else:
            write_log(answer)

    # All in one turn of the loop: the largest batch, a thousand posts with their answers, takes some 12 ms of CPU.
    def _stored(self, answer: Stored) -> None:
        self._fault, self.store_fault = answer.faults
        self._heard_at = monotonic()
        self.measures.retries, self.measures.dead = answer.retries, answer.dead
        if answer.stored:
            self.measures.stored(answer.stored, (answer.ended_ns - answer.begun_ns) / 1e9, answer.age_s)
        self._apply_ring()
        for place, packed in enumerate(answer.outcomes, answer.first):
            self._outcome(place, packed)
        self._trace(answer.begun_ns, answer.ended_ns)
        self._resolve()

    def _outcome(self, place: int, packed: int | bytes | None) -> None:
        """The committer's answer to a command of ours. If there is a ring, and the outcome was not in it, then the
        command was refused, or the ring was missed and all that was remembered is dropped since."""
        if place >= self._answered:
            ticket, outcome = self._next(), unpacked(packed)
            if self._reader is None:
                self._applied(ticket.command, outcome)
            self._to_resolve.append((ticket, outcome))
        elif self._late and self._late[0][0] == place:
            self._to_resolve.append((self._late.popleft()[1], unpacked(packed)))

    def _next(self) -> Ticket:
        """The ticket that has waited longest, which waits no more."""
        ticket, user_id, size, held = self._waiting.popleft()
        self._answered += 1
        self._bytes -= held
        self._of_users.give_back(user_id, size)
        return ticket

    def _applied(self, command: Command, outcome: Outcome) -> None:
        if isinstance(outcome, ChatError):
            return
        if self._tracing is not None:
            self._traced.append(command)
        self._tell(command, outcome)

    def _tell(self, command: Command, outcome: Outcome) -> None:
        try:
            self._changes.applied(command, outcome)
        except Exception:
            log.exception("What is remembered could not be changed as a command says, and is dropped.")
            self._changes.missed()

    def _trace(self, begun_ns: int, ended_ns: int) -> None:
        if self._tracing is not None:
            self._tracing.stored(self._traced, begun_ns, ended_ns)
            self._traced.clear()

    def _resolve(self) -> None:
        """Resolve what has an outcome. A listener may handle a request, and so come here again: then the call that is
        under way goes on with what was added, in order."""
        if self._resolving:
            return
        self._resolving = True
        try:
            while self._to_resolve:
                ticket, outcome = self._to_resolve.popleft()
                try:
                    ticket.resolve(outcome)
                except Exception:
                    log.exception("A listener failed; the command's outcome is not changed by that.")
        finally:
            self._resolving = False

    def catch_up(self) -> None:
        """Apply what was committed by any process until now. All that was acknowledged is in every later read."""
        reader = self._reader
        if reader is not None and reader.head[0] != reader.at:
            self._apply_ring()
            self._resolve()

    def _woken(self, waker: int) -> None:
        os.eventfd_read(waker)
        self.catch_up()

    def _apply_ring(self) -> None:
        """Apply what is new in the ring to what is remembered, before any of its outcomes is told."""
        reader = self._reader
        while reader is not None and reader.head[0] != reader.at:
            content = reader.next()
            if content is None:
                self._changes.missed()
            else:
                self._apply_batch(self._decode_batch(content))

    def _apply_batch(self, batch: Batch) -> None:
        while self._answered < batch.firsts[self._number]:  # the committer's answer is under way
            self._late.append((self._answered, self._next()))
        for origin, packed, encoded in zip(batch.origins, batch.outcomes, batch.commands, strict=True):
            outcome = unpacked(packed)
            if origin == self._number:
                ticket = self._next()
                self._applied(ticket.command, outcome)
                self._to_resolve.append((ticket, outcome))
            elif not isinstance(outcome, ChatError):
                self._tell(self._decode_command(encoded), outcome)
        self._trace(batch.begun_ns, batch.ended_ns)
