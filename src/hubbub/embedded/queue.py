"""The queue of the embedded mode: a bounded list and one thread that commits the waiting commands.

Group commit: the next batch gathers while one is written to disk. So the busier the service is, the more requests share
the cost of a commit, and an idle service answers after a single commit. Under medium load, when a batch has only a few
commands, the thread waits a moment for more: it shares one interpreter with the event loop, and each commit costs the
loop several turns. When batches are large there is nothing to gain, and it does not wait.

Invariants: commands are applied in the order of ``accept``; every accepted ticket is resolved exactly once, on the
event loop; the held commands, in all and of one user, stay within the bounds, because ``accept`` refuses commands that
would exceed them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple

from hubbub.chat.commands import Command, EditMessage, Outcome, PostMessage
from hubbub.chat.errors import Unavailable
from hubbub.chat.ticket import Ticket
from hubbub.chat.user_bytes import SERVICE, UserBytes
from hubbub.embedded.writer import Writer

log = logging.getLogger("hubbub.queue")

_OVERHEAD = 500  # bytes a command costs beside its body
_LINGER_S = 0.002
_LINGER_FOR = range(3, 32)


class _Waiting(NamedTuple):
    """A command that waits. It costs ``size`` bytes, which count against the user."""

    ticket: Ticket
    user_id: int
    size: int


class EmbeddedQueue:
    """The queue of one process, see chat.ports.Queue. It belongs to the event loop in which it is created."""

    def __init__(
        self,
        writer: Writer,
        *,
        max_commands: int = 20_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_user_bytes: int = 1024 * 1024,
        max_batch: int = 1000,
        max_batch_bytes: int = 4 * 1024 * 1024,
        housekeeping_s: float = 1.0,
    ) -> None:
        self._writer = writer
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._housekeeping_s = housekeeping_s
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._closed = False
        self._commands = 0
        self._bytes = 0
        self._of_users = UserBytes(max_user_bytes)
        self.accepted = 0
        self._last_batch = 0
        self._thread = threading.Thread(target=self._run, name="group-commit")
        self._thread.start()

    @property
    def depth(self) -> int:
        return self._commands

    @property
    def fault(self) -> str | None:
        return self._writer.fault

    def accept(self, command: Command) -> Ticket:
        user_id, size = _owed(command)
        if self._commands >= self._max_commands or self._bytes + size > self._max_bytes:
            raise Unavailable("The write queue is full. Nothing was stored; send it again a little later.")
        if self._closed:
            raise Unavailable("The service is shutting down. Nothing was stored; send it again a little later.")
        self._of_users.take(user_id, size)
        self._commands += 1
        self._bytes += size
        self.accepted += 1
        ticket = Ticket(command)
        self._waiting.put(_Waiting(ticket, user_id, size))
        return ticket

    async def close(self) -> None:
        """Refuse new commands, finish the accepted ones, and end the thread."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the loop resolve the last tickets, which the thread has handed to it

    def _run(self) -> None:
        try:
            self._commit()
        except BaseException:
            # Without this thread, requests that write would wait for ever. Ending the process loses nothing that was
            # acknowledged, and its supervisor restarts it.
            log.critical("The thread that commits failed; the process ends.", exc_info=True)
            os._exit(1)

    def _commit(self) -> None:
        last = time.monotonic()
        open_ = True
        while open_:
            batch, open_ = self._gather()
            self._last_batch = len(batch)
            if batch:
                outcomes = self._writer.apply([each.ticket.command for each in batch])
                self._loop.call_soon_threadsafe(self._tell, batch, outcomes)
            if time.monotonic() - last >= self._housekeeping_s:
                self._writer.housekeep()
                last = time.monotonic()
        self._writer.housekeep()

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """Wait for a command, then take all waiting ones, up to the bounds of a batch; the last one may exceed the
        bound of bytes. The second value is False with the last batch after ``close``."""
        batch: list[_Waiting] = []
        size = 0
        take = self._waiting.get
        try:
            each = take(timeout=self._housekeeping_s)
            if self._last_batch in _LINGER_FOR:
                time.sleep(_LINGER_S)
            while each is not None:
                batch.append(each)
                size += each.size
                if len(batch) == self._max_batch or size >= self._max_batch_bytes:
                    return batch, True
                each = take(block=False)
        except Empty:
            return batch, True
        return batch, False

    # All in one turn of the loop: the largest batch, a thousand posts with their answers, takes some 12 ms of CPU.
    def _tell(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
        self._commands -= len(batch)
        for (ticket, user_id, size), outcome in zip(batch, outcomes, strict=True):
            self._bytes -= size
            self._of_users.give_back(user_id, size)
            try:
                ticket.resolve(outcome)
            except Exception:
                log.exception("A listener failed; the command's outcome is not changed by that.")


def _owed(command: Command) -> tuple[int, int]:
    """The id of the user that the command counts against, and how many bytes it costs."""
    if type(command) is PostMessage:
        return command.sender_id, _OVERHEAD + command.body.__sizeof__()
    if type(command) is EditMessage:
        return command.editor_id, _OVERHEAD + command.body.__sizeof__()
    return SERVICE, _OVERHEAD
