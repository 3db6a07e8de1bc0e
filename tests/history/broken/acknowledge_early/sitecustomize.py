"""A Hubbub that is broken on purpose: it answers before the commit."""

from hubbub.chat.commands import Command, PostMessage
from hubbub.chat.ticket import Ticket
from hubbub.queues.embedded import EmbeddedQueue

_accept = EmbeddedQueue.accept


def accept(self: EmbeddedQueue, command: Command) -> Ticket:
    ticket = _accept(self, command)
    if isinstance(command, PostMessage):
        told = Ticket(command)
        told.resolve(command.number)
        return told
    return ticket


EmbeddedQueue.accept = accept  # type: ignore[method-assign]
