"""The receipt for a command on its way to disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

from hubbub.chat.commands import Outcome
from hubbub.chat.errors import ChatError

_PENDING = object()


class Ticket:
    """Resolved once, on the event loop, when the command's outcome is durable or refused.

    Invariant: a listener is called exactly once, in the order of registration, and never before ``resolve``.
    ``then`` costs far less than a Future (no task switch, no call_soon), which the path of a message needs; ``await``
    is there for everything else.
    """

    __slots__ = ("_listeners", "_outcome", "command")

    def __init__(self, command: Any) -> None:
        self.command = command
        self._outcome: Outcome = _PENDING
        self._listeners: tuple[Callable[[Outcome], None], ...] = ()

    def then(self, listener: Callable[[Outcome], None]) -> None:
        """Call ``listener`` with the outcome; at once when it is already known."""
        if self._outcome is _PENDING:
            self._listeners += (listener,)
        else:
            listener(self._outcome)

    def resolve(self, outcome: Outcome) -> None:
        self._outcome = outcome
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            listener(outcome)

    def __await__(self) -> Generator[Any, None, Any]:
        """The outcome's value.

        Raises:
            ChatError: the command was refused; nothing was changed.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.then(lambda outcome: None if future.done() else future.set_result(outcome))
        outcome = yield from future
        if isinstance(outcome, ChatError):
            raise outcome
        return outcome
