"""A Hubbub that is broken on purpose: it answers before the commit."""

import time
from collections.abc import Sequence

from hubbub.chat.commands import Command, Outcome, PostMessage
from hubbub.chat.ticket import Ticket
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.writer import Writer

_accept = EmbeddedQueue.accept


def accept(self: EmbeddedQueue, command: Command) -> Ticket:
    ticket = _accept(self, command)
    if isinstance(command, PostMessage):
        told = Ticket(command)
        told.resolve(command.number)
        return told
    return ticket


_apply = Writer.apply


def apply(self: Writer, batch: Sequence[Command]) -> list[Outcome]:
    time.sleep(0.02)  # a disk that takes its time, so that few kills are enough
    return _apply(self, batch)


Writer.apply = apply  # type: ignore[method-assign]
EmbeddedQueue.accept = accept  # type: ignore[method-assign]
