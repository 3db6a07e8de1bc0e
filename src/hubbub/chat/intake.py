"""The one way in for commands: the cache hears of an outcome before the caller does."""

from __future__ import annotations

from hubbub.chat.commands import Command
from hubbub.chat.errors import ChatError
from hubbub.chat.ports import Cache, Queue
from hubbub.chat.ticket import Ticket


class Intake:
    def __init__(self, queue: Queue, cache: Cache) -> None:
        self._queue = queue
        self._cache = cache

    def accept(self, command: Command) -> Ticket:
        """Queue the command; its ticket's listeners run after the cache has settled it.

        Raises:
            Unavailable: refused; nothing was done.
        """
        try:
            ticket = self._queue.accept(command)
        except ChatError as refusal:
            self._cache.settled(command, refusal)
            raise
        ticket.then(lambda outcome: self._cache.settled(command, outcome))
        return ticket
