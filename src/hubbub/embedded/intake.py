"""The intake of the embedded mode: it has a command stored, and then answers the caller."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from hubbub.chat.caller import Caller
from hubbub.chat.commands import Command, PostMessage
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Queue
from hubbub.chat.ticket import Ticket


class DirectIntake:
    """The intake of the embedded mode, see chat.ports.Intake.

    Whether an Idempotency-Key was used before is found at the commit, as commands are applied one after another. The
    store is not read for it before: it may have a first try that another process accepted and this cache has not heard
    of. If a retry were answered then, the next read might lack the message.
    """

    def __init__(self, queue: Queue, now: Callable[[], int]) -> None:
        self._queue = queue
        self._now = now

    def accept(self, command: Command) -> Ticket:
        """See chat.ports.Intake. A ticket's listeners run after the cache is updated, see embedded.queue."""
        return self._queue.accept(command)

    async def post(self, caller: Caller, key: ChatKey, body: str, idempotency_key: str | None) -> Ticket:
        user = caller.user
        if idempotency_key is None:
            return self.post_at_once(user, key, body, caller.trace)
        digest = hashlib.sha256(body.encode()).digest()
        return self.accept(
            PostMessage(
                key, 0, user.id, user.ref, user.name, body, self._now(), idempotency_key, digest, trace=caller.trace
            )
        )

    def post_at_once(self, user: User, key: ChatKey, body: str, trace: str) -> Ticket:
        """As ``post`` without an Idempotency-Key. Raises Unavailable, RateLimited."""
        return self._queue.accept(PostMessage(key, 0, user.id, user.ref, user.name, body, self._now(), trace=trace))
