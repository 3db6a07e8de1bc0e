"""The way in where a queue outside the process keeps what was accepted, and the store has it a little later.

Messages, edits and deletes go through the queue; the directory (users, applications, members, chats), which changes
seldom, is written to the store at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from hubbub.chat.commands import (
    AddChat,
    Command,
    DeleteMessage,
    EditMessage,
    Outcome,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameApplication,
    RenameChat,
)
from hubbub.chat.errors import ChatError, KeyReused, Unavailable
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Queue, Store
from hubbub.chat.ticket import Ticket

log = logging.getLogger("hubbub.intake")


class Slot(NamedTuple):
    """A number for a message; with ``retried``, the number and the time that its first try has, not stored yet."""

    epoch: int
    number: int
    created_at: int
    retried: bool = False


class Posted(NamedTuple):
    """What an Idempotency-Key was used for before."""

    number: int
    body_hash: bytes


class Numbers(Protocol):
    """Gives message numbers and shows what is queued, see caches.redis."""

    async def open(self, key: ChatKey) -> None: ...
    async def reserve(
        self, key: ChatKey, created_at: int, *, claim: tuple[int, str, bytes] | None = None, seen: object = None
    ) -> Slot | Posted: ...
    def settle(self, post: PostMessage, *, retried: bool) -> asyncio.Future[int]: ...
    async def changed(self, command: EditMessage | DeleteMessage) -> None: ...
    async def application_changed(self, token: str) -> None: ...
    async def announce_new_chat(self, token: str) -> str: ...
    async def new_chat(self, key: ChatKey, guard: str) -> None: ...


class QueuedIntake:
    """See chat.ports.Intake."""

    def __init__(self, queue: Queue, store: Store, numbers: Numbers, now: Callable[[], int]) -> None:
        self._queue = queue
        self._store = store
        self._numbers = numbers
        self._now = now
        self._carrying: set[asyncio.Task[None]] = set()

    # Posts -------------------------------------------------------------------------------------------------------

    async def post(
        self, user: User, key: ChatKey, body: str, idempotency_key: str | None, seen: object = None, trace: str = ""
    ) -> Ticket:
        now = self._now()
        body_hash = hashlib.sha256(body.encode()).digest() if idempotency_key is not None else None
        claim = None
        if idempotency_key is not None and body_hash is not None:
            claim = user.id, idempotency_key, body_hash
        slot = await self._numbers.reserve(key, now, claim=claim, seen=seen)
        if isinstance(slot, Posted):
            if slot.body_hash != body_hash:
                raise KeyReused("This Idempotency-Key was used before with another body; take a new key.")
            done = Ticket(PostMessage(key, slot.number, user.id, user.name, body, now))
            done.resolve(slot.number)
            return done
        command = PostMessage(
            key, slot.number, user.id, user.name, body, slot.created_at, idempotency_key, body_hash, slot.epoch, trace
        )
        answer = Ticket(command)
        self._queue.accept(command).then(lambda outcome: self._queued(answer, command, outcome, retried=slot.retried))
        return answer

    def _queued(self, answer: Ticket, command: PostMessage, outcome: Outcome, *, retried: bool) -> None:
        """The number is told only once the message is shown, see caches.redis."""
        if isinstance(outcome, ChatError):
            answer.resolve(outcome)
            return
        try:
            settling = self._numbers.settle(command, retried=retried)
        except Unavailable:
            answer.resolve(_unknown())
            return
        settling.add_done_callback(lambda done: answer.resolve(_number(command, done)))

    # Everything else ---------------------------------------------------------------------------------------------

    def accept(self, command: Command) -> Ticket:
        ticket = Ticket(command)
        task = asyncio.get_running_loop().create_task(self._carry(ticket, command))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return ticket

    async def _carry(self, ticket: Ticket, command: Command) -> None:
        outcome: Outcome
        try:
            if isinstance(command, EditMessage | DeleteMessage):
                outcome = await self._change(command)
            else:
                outcome = await self._apply(command)
        except ChatError as refusal:
            outcome = refusal
        except Exception:
            log.exception("A %s failed.", type(command).__name__)
            outcome = Unavailable("This could not be stored. If it happens again, the service's log says why.")
        ticket.resolve(outcome)

    async def _change(self, command: EditMessage | DeleteMessage) -> Outcome:
        command = msgspec.structs.replace(command, op=secrets.token_hex(8))
        await self._numbers.open(command.chat)
        await self._queue.accept(command)
        await self._numbers.changed(command)
        return None

    async def _apply(self, command: Command) -> Outcome:
        token = _application_of(command)
        guard = None
        if token is not None:
            # Before and after: who reads between the two remembers what it read under a version that goes at once.
            await self._numbers.application_changed(token)
        if isinstance(command, AddChat):
            guard = await self._numbers.announce_new_chat(command.token)
        (outcome,) = await asyncio.to_thread(self._store.apply, [command])
        if token is not None:
            await self._tell(token)
        if guard is not None and isinstance(command, AddChat) and isinstance(outcome, int):
            try:
                await self._numbers.new_chat(ChatKey(command.token, outcome), guard)
            except Unavailable as error:
                log.info("A new chat will be opened when it is used: %s", error.sentence)
        return outcome

    async def _tell(self, token: str) -> None:
        """The change is stored. Other processes may remember the old state for some seconds if they can't be told."""
        try:
            await self._numbers.application_changed(token)
        except Unavailable as error:
            log.warning("Other processes hear of a change some seconds later: %s", error.sentence)

    async def close(self) -> None:
        await asyncio.gather(*self._carrying, return_exceptions=True)


def _number(command: PostMessage, settling: asyncio.Future[int]) -> Outcome:
    if settling.cancelled() or settling.exception() is not None or settling.result() == 0:
        return _unknown()
    return command.number


def _unknown() -> Unavailable:
    return Unavailable("The message is queued, but its number can't be vouched for; it may or may not be stored.")


def _application_of(command: Command) -> str | None:
    if isinstance(command, PutMember | RemoveMember | RenameApplication | AddChat):
        return command.token
    return command.chat.token if isinstance(command, RenameChat) else None
