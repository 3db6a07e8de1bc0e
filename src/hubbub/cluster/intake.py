"""The intake of a cluster: accepted commands are kept in the queue and stored a little later. See chat.ports.Intake.

Messages, edits and deletes go through the queue. The directory (users, applications, members, chats) changes rarely and
is written to the store directly.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AcceptInvite,
    AddChat,
    AddInvitedUser,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    EditMessage,
    HandOver,
    Outcome,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameApplication,
    RenameChat,
)
from hubbub.chat.errors import ChatError, KeyReused, Unavailable
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ticket import Ticket
from hubbub.cluster.generations import Generations
from hubbub.cluster.protocol import Delete, Edit, Post
from hubbub.cluster.publisher import NeverSent, Publisher, Reservation
from hubbub.cluster.redis.gate import ReservedNumber, Seen
from hubbub.cluster.redis.numbers import (
    Claim,
    Confirmed,
    Numbers,
    Posted,
    Slot,
    change_entry,
    post_entry,
)
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.store import MySqlStore

log = logging.getLogger("hubbub.intake")


class QueuedIntake:
    def __init__(
        self,
        publisher: Publisher,
        store: MySqlStore,
        numbers: Numbers,
        servers: Servers,
        generations: Generations,
        now: Callable[[], int],
    ) -> None:
        self._publisher = publisher
        self._store = store
        self._numbers = numbers
        self._servers = servers
        self._generations = generations
        self._now = now
        self._carrying: set[asyncio.Task[None]] = set()
        # The commands confirmed in this turn of the event loop, by the Redis server that shows them.
        self._confirmed: dict[int, list[tuple[Confirmed, Ticket]]] = {}

    # Posts -------------------------------------------------------------------------------------------------------

    async def post(self, caller: Caller, key: ChatKey, body: str, idempotency_key: str | None) -> Ticket:
        if isinstance(caller.brought, Seen) and caller.brought.reserved is not None:
            return self.post_numbered(caller.user, key, body, caller.brought.reserved, caller.trace)
        now, claim = self._now(), None
        if idempotency_key is not None:
            claim = Claim(caller.user.id, idempotency_key, hashlib.sha256(body.encode()).digest())
        reservation = self._publisher.hold(key.token, len(body), caller.user.id)  # before it takes a number (rule 7)
        try:
            found = await self._numbers.reserve(key, now, claim)
        except BaseException:
            self._publisher.release(reservation)
            raise
        if claim is not None and isinstance(found, Posted):
            self._publisher.release(reservation)
            if found.body_hash != claim.body_hash:
                raise KeyReused("This Idempotency-Key was used before with another body; take a new key.")
            return self._told_before(caller, key, body, found.number)
        assert isinstance(found, Slot)  # noqa: S101 - only a claim brings what was posted
        if found.shown:
            self._publisher.release(reservation)
            if not await self._generations.vouch(self._servers.slot_of(key.token), found.generation):
                raise _unknown()
            return self._told_before(caller, key, body, found.number)
        return self._send(caller.user, key, body, found, claim, reservation, caller.trace)

    def post_numbered(self, user: User, key: ChatKey, body: str, reserved: ReservedNumber, trace: str) -> Ticket:
        """Send a message that has its number, which the gate has brought."""
        slot = Slot(reserved.generation, reserved.epoch, reserved.number, self._now())
        return self._send(user, key, body, slot, None, reserved.take(), trace)

    @staticmethod
    def _told_before(caller: Caller, key: ChatKey, body: str, number: int) -> Ticket:
        done = Ticket(PostMessage(key, number, caller.user.id, caller.user.ref, caller.user.name, body, 0))
        done.resolve(number)
        return done

    def _send(
        self,
        user: User,
        key: ChatKey,
        body: str,
        slot: Slot,
        claim: Claim | None,
        reservation: Reservation,
        trace: str,
    ) -> Ticket:
        command = Post(
            key,
            slot.number,
            user.id,
            user.name,
            body,
            slot.created_at,
            None if claim is None else claim.key,
            None if claim is None else claim.body_hash,
            slot.epoch,
            trace,
            user.ref,
        )
        answer = Ticket(command)
        self._publisher.send_for(command, reservation, partial(self._queued, command, slot, claim, answer))
        return answer

    def _queued(
        self, command: Post, slot: Slot, claim: Claim | None, answer: Ticket, refusal: Unavailable | None
    ) -> None:
        """The queue has a post, or has refused it."""
        if refusal is None:
            self._show(Confirmed(command, slot.generation, post_entry(command)), answer)
            return
        answer.resolve(refusal)
        if isinstance(refusal, NeverSent):
            self._carry(self._numbers.release(command.chat, slot, claim))

    # Showing -----------------------------------------------------------------------------------------------------

    def _show(self, confirmed: Confirmed, answer: Ticket) -> None:
        """Show a command that the queue has confirmed; ``answer`` is resolved once it is shown. All commands that are
        confirmed in one turn of the event loop travel to Redis in one round trip."""
        if not self._confirmed:
            asyncio.get_running_loop().call_soon(self._show_all)
        slot = self._servers.slot_of(confirmed.command.chat.token)
        self._confirmed.setdefault(slot, []).append((confirmed, answer))

    def _show_all(self) -> None:
        gathered, self._confirmed = self._confirmed, {}
        for slot, items in gathered.items():
            self._carry(self._show_some(slot, items))

    async def _show_some(self, slot: int, items: list[tuple[Confirmed, Ticket]]) -> None:
        try:
            results = await self._numbers.show(slot, [confirmed for confirmed, _ in items])
        except Unavailable:
            results = [False] * len(items)
        fresh = None  # a generation that is, as of this turn of the event loop
        for (confirmed, answer), shown in zip(items, results, strict=True):
            # It may be acknowledged only if it is shown, in the data set that all processes use (rule 3).
            command, generation, _ = confirmed
            if shown and generation != fresh:
                if self._generations.fresh(slot, generation):
                    fresh = generation
                else:
                    fresh, shown = None, await self._generations.vouch(slot, generation)
            answer.resolve((command.number if isinstance(command, Post) else None) if shown else _unknown())

    # Everything else ---------------------------------------------------------------------------------------------

    def accept(self, command: Command) -> Ticket:
        ticket = Ticket(command)
        self._carry(self._accept(ticket, command))
        return ticket

    def _carry(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._carrying.add(task)
        task.add_done_callback(self._carried)

    def _carried(self, task: asyncio.Task[None]) -> None:
        self._carrying.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A request under way has failed.", exc_info=error)

    async def _accept(self, ticket: Ticket, command: Command) -> None:
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
        key, number = command.chat, command.number
        if isinstance(command, EditMessage):
            reservation = self._publisher.hold(key.token, len(command.body), command.editor_id)
        else:
            reservation = self._publisher.hold(key.token, 0, command.deleter_id)
        try:
            ordered = await self._numbers.order(key, number)
        except BaseException:
            self._publisher.release(reservation)
            raise
        queued: Edit | Delete
        if isinstance(command, EditMessage):
            queued = Edit(key, number, command.editor_id, command.body, command.edited_at, order=ordered.order)
        else:
            queued = Delete(key, number, command.deleter_id, command.any_sender, order=ordered.order)
        await self._publisher.send(queued, reservation)
        answer = Ticket(command)
        self._show(Confirmed(queued, ordered.generation, change_entry(queued, ordered.message)), answer)
        outcome: Outcome = await answer
        return outcome

    async def _apply(self, command: Command) -> Outcome:
        token = _application_of(command)
        # Nothing is changed that Redis can't be told of. What processes remember stays valid until the change is made:
        # while the database is away they could not read it again, and would refuse every post.
        guard = None if token is None else await self._numbers.announce(token)
        outcome = await self._store.change(command)
        # Also when it was deleted before: an earlier try that was refused may not have reached this step.
        if isinstance(command, DeleteChat):
            await self._numbers.chat_deleted(command.chat)
        elif isinstance(command, DeleteApplication):
            await self._numbers.application_changed(command.token)
        elif token is not None:
            await self._tell(token)
        if guard is not None and isinstance(command, AddChat) and isinstance(outcome, int):
            try:
                await self._numbers.new_chat(ChatKey(command.token, outcome), guard)
            except Unavailable as error:
                log.info("A new chat will be opened when it is used: %s", error.sentence)
        return outcome

    async def _tell(self, token: str) -> None:
        """Announce a stored change. If that fails, other processes may use the old state for some seconds."""
        try:
            await self._numbers.application_changed(token)
        except Unavailable as error:
            log.warning("Other processes will learn of a change some seconds later: %s", error.sentence)

    async def close(self) -> None:
        """Finish the requests in progress."""
        while self._carrying:
            await asyncio.gather(*self._carrying, return_exceptions=True)


def _unknown() -> Unavailable:
    return Unavailable("The message is queued, but its number can't be confirmed; it may or may not be stored.")


def _application_of(command: Command) -> str | None:
    if isinstance(
        command,
        PutMember
        | RemoveMember
        | HandOver
        | AcceptInvite
        | AddInvitedUser
        | RenameApplication
        | DeleteApplication
        | AddChat,
    ):
        return command.token
    return command.chat.token if isinstance(command, RenameChat | DeleteChat) else None
