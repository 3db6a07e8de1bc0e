"""The queue of the embedded mode: a bounded list of commands, which another process commits (embedded.committer).

The commands of one turn of the event loop are sent together, at once: what gathers while a batch is written to disk is
the next batch.

Invariants: commands are sent in the order of ``accept``; every accepted ticket is resolved exactly once, on the event
loop, in that order; the held commands, in all and of one user, stay within the bounds, because ``accept`` refuses
commands that would exceed them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from time import monotonic

import msgspec

from hubbub.chat.commands import Command
from hubbub.chat.errors import ChatError, Unavailable
from hubbub.chat.ticket import Ticket
from hubbub.chat.user_bytes import UserBytes
from hubbub.embedded.child import Channel, end_with, write_log
from hubbub.embedded.committer import Answer, Indexed, Stored, owed
from hubbub.embedded.frames import Unsound, array, unpacked
from hubbub.measures import WriteMeasures
from hubbub.tracing import Tracing

log = logging.getLogger("hubbub.queue")

_SILENT_S = 10.0  # without an outcome while commands wait; a commit takes some milliseconds


class EmbeddedQueue:
    """The queue of the embedded mode, see chat.ports.Queue. It belongs to the event loop in which it is created.

    ``fault`` says why the latest batch could not be stored, or that no outcome comes; ``store_fault`` why the store
    takes no writes at all. Each is None when all is well.
    """

    def __init__(
        self,
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
        # The tickets that wait, each with its user, the bytes that count against the user, and those held in memory.
        self._waiting: deque[tuple[Ticket, int, int, int]] = deque()
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
        if self._waiting:
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
        applied: list[Command] = []
        for packed in answer.outcomes:
            ticket, user_id, size, held = self._waiting.popleft()
            self._bytes -= held
            self._of_users.give_back(user_id, size)
            outcome = unpacked(packed)
            if not isinstance(outcome, ChatError):
                applied.append(ticket.command)
            try:
                ticket.resolve(outcome)
            except Exception:
                log.exception("A listener failed; the command's outcome is not changed by that.")
        if applied:
            self.measures.stored(len(applied), (answer.ended_ns - answer.begun_ns) / 1e9, answer.age_s)
            if self._tracing is not None:
                self._tracing.stored(applied, answer.begun_ns, answer.ended_ns)
