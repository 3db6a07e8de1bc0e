"""The way in where accepting a command and storing it are one: the hot data hears of an outcome before the caller."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from hubbub.chat.commands import Command, Outcome, PostMessage
from hubbub.chat.errors import ChatError, KeyReused
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Queue, Store
from hubbub.chat.ticket import Ticket


class HotData(Protocol):
    """See caches.memory."""

    async def next_number(self, key: ChatKey) -> int: ...
    def settled(self, command: Command, outcome: Outcome) -> None: ...


class DirectIntake:
    """See chat.ports.Intake."""

    def __init__(self, queue: Queue, store: Store, hot: HotData, now: Callable[[], int]) -> None:
        self._queue = queue
        self._store = store
        self._hot = hot
        self._now = now
        # Posts with an Idempotency-Key that are not durable yet. An entry is made before its command is accepted and
        # goes only after the store has the key, so a retry finds the first try in one of the two places, always.
        self._keyed: dict[tuple[ChatKey, int, str], tuple[Ticket, bytes]] = {}

    def accept(self, command: Command) -> Ticket:
        """A ticket's listeners run after the hot data has settled its command."""
        try:
            ticket = self._queue.accept(command)
        except ChatError as refusal:
            self._hot.settled(command, refusal)
            raise
        ticket.then(lambda outcome: self._hot.settled(command, outcome))
        return ticket

    async def post(
        self, user: User, key: ChatKey, body: str, idempotency_key: str | None, seen: object = None, trace: str = ""
    ) -> Ticket:
        if idempotency_key is not None:
            return await self._post_once(user, key, body, idempotency_key, trace)
        number = await self._hot.next_number(key)
        return self.accept(PostMessage(key, number, user.id, user.name, body, self._now(), trace=trace))

    async def _post_once(self, user: User, key: ChatKey, body: str, idempotency_key: str, trace: str) -> Ticket:
        body_hash = hashlib.sha256(body.encode()).digest()
        entry = (key, user.id, idempotency_key)
        first = self._keyed.get(entry)
        if first is None:
            stored = await self._store.posted(key, user.id, idempotency_key)
            first = self._keyed.get(entry)  # another try may have got this far while the store was asked
            if first is None and stored is not None:
                number, stored_hash = stored
                done = Ticket(PostMessage(key, number, user.id, user.name, body, 0))
                done.resolve(number)
                first = done, stored_hash
        if first is not None:
            ticket, first_hash = first
            if first_hash != body_hash:
                raise KeyReused("This Idempotency-Key was used before with another body; take a new key.")
            return ticket
        number = await self._hot.next_number(key)
        command = PostMessage(
            key, number, user.id, user.name, body, self._now(), idempotency_key, body_hash, trace=trace
        )
        ticket = self.accept(command)
        self._keyed[entry] = ticket, body_hash

        def forget(_: Outcome) -> None:
            del self._keyed[entry]

        ticket.then(forget)
        return ticket
