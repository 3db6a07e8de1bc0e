"""The intake of the embedded mode: it stores a command, updates the cache, and then answers the caller."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from hubbub.chat.caller import Caller
from hubbub.chat.commands import Command, Outcome, PostMessage
from hubbub.chat.errors import ChatError, KeyReused, Unavailable
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Queue, Store
from hubbub.chat.ticket import Ticket


class HotData(Protocol):
    """See embedded.view."""

    def settled(self, command: Command, outcome: Outcome) -> None: ...


class DirectIntake:
    """The intake of the embedded mode, see chat.ports.Intake."""

    def __init__(self, queue: Queue, store: Store, hot: HotData, now: Callable[[], int]) -> None:
        self._queue = queue
        self._store = store
        self._hot = hot
        self._now = now
        # Posts with an Idempotency-Key whose outcome is not known yet. An entry is added before the store is read or
        # the post is accepted, and removed once the post is stored or refused. So a retry always finds the first try,
        # here or in the store; if another process has accepted that, at the latest when the retry is committed.
        self._keyed: dict[tuple[ChatKey, int, str], tuple[Ticket, bytes]] = {}

    def accept(self, command: Command) -> Ticket:
        """See chat.ports.Intake. A ticket's listeners run after the cache is updated."""
        ticket = self._queue.accept(command)
        ticket.then(lambda outcome: self._hot.settled(command, outcome))
        return ticket

    async def post(self, caller: Caller, key: ChatKey, body: str, idempotency_key: str | None) -> Ticket:
        if idempotency_key is not None:
            return await self._post_once(caller, key, body, idempotency_key)
        return self.post_at_once(caller.user, key, body, caller.trace)

    def post_at_once(self, user: User, key: ChatKey, body: str, trace: str) -> Ticket:
        """As ``post`` without an Idempotency-Key. Raises Unavailable, RateLimited."""
        return self.accept(PostMessage(key, 0, user.id, user.ref, user.name, body, self._now(), trace=trace))

    async def _post_once(self, caller: Caller, key: ChatKey, body: str, idempotency_key: str) -> Ticket:
        user = caller.user
        body_hash = hashlib.sha256(body.encode()).digest()
        entry = (key, user.id, idempotency_key)
        while (first := self._keyed.get(entry)) is not None:
            ticket, first_hash = first
            if first_hash == body_hash:
                return ticket
            try:
                await ticket
            except ChatError:
                continue  # the first try failed, and its entry is removed
            raise _reused()
        post = PostMessage(
            key, 0, user.id, user.ref, user.name, body, self._now(), idempotency_key, body_hash, trace=caller.trace
        )
        answer = Ticket(post)
        self._keyed[entry] = answer, body_hash

        def forget(_: Outcome) -> None:
            del self._keyed[entry]

        answer.then(forget)
        try:
            await self._carry(post, idempotency_key, answer)
        except ChatError as refusal:
            answer.resolve(refusal)
        except BaseException:
            answer.resolve(Unavailable("This could not be stored. If it happens again, the service's log says why."))
            raise
        return answer

    async def _carry(self, post: PostMessage, idempotency_key: str, answer: Ticket) -> None:
        """Resolve ``answer``: at once if the store has the key, otherwise when the outcome of the post is known."""
        stored = await self._store.posted(post.chat, post.sender_id, idempotency_key)
        if stored is None:
            self.accept(post).then(answer.resolve)
            return
        number, stored_hash = stored
        answer.resolve(number if stored_hash == post.body_hash else _reused())


def _reused() -> KeyReused:
    return KeyReused("This Idempotency-Key was used before with another body; take a new key.")
