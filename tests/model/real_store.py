"""A store of one chat for the real views and scripts. It keeps every state it was in, so it can answer like a replica
that is just at the required position, and its answers can be late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from hubbub.chat.commands import Outcome
from hubbub.chat.errors import NotFound
from hubbub.chat.model import Chat, ChatKey, Message
from hubbub.cluster.protocol import (
    Delete,
    Edit,
    Failed,
    OpenChat,
    Opened,
    Position,
    Post,
    Queued,
    Repeated,
    Straggler,
    place_of,
)

KEPT = 12  # messages that an opening returns; the real number is 101


class Row(NamedTuple):
    """A message, and the order of its last change."""

    message: Message
    changed: int


class Late:
    """A point at which a task waits until the schedule lets it continue. ``come`` is set once one waits."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.come = asyncio.Event()

    async def wait(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.come.set()
        await future


class KeptStore:
    """A store that applies commands as cluster.deliveries does, one transaction after the other.

    With ``copies``, a query that names a position is answered with the state at that position. ``faulty`` has the texts
    of posts that it can't store. ``late``, if set, holds back the next answer of ``ordered``.
    """

    def __init__(self, *, copies: bool) -> None:
        self.copies = copies
        self.faulty: set[str] = set()
        self.aside: set[int] = set()
        self.told_aside: set[int] = set()
        self.late: Late | None = None
        self.asked: list[list[int]] = []
        self.shards = 4
        self.applied = 0
        self.states: dict[Position, int] = {}
        self.rows: dict[int, list[tuple[int, Row | None]]] = {}
        self.keys: dict[tuple[int, str], tuple[int, bytes]] = {}
        self.state = 0
        self.last_number = 0
        self.epoch = self.live_epoch = 1
        self.opening = 0

    # Writing -----------------------------------------------------------------------------------------------------

    def transaction(self, commands: Sequence[Queued]) -> tuple[Position, list[Outcome]]:
        self.state += 1
        self.applied += 1
        outcomes = [self._apply(command) for command in commands]
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, Failed):
                assert isinstance(command, Post | Edit | Delete)
                self.told_aside.add(command.number)
        position = Position(self.shards, 0, self.applied)
        self.states[position] = self.state
        return position, outcomes

    def _apply(self, command: Queued) -> Outcome:
        if isinstance(command, OpenChat):
            self.epoch += 1
            self.opening = self.epoch
            newest = [row for _, row in sorted(self.stored().items(), reverse=True)][:KEPT]
            last = max(self.last_number, newest[0].message.number if newest else 0)
            return Opened(self.epoch, last, [(row.message, row.changed) for row in newest])
        assert isinstance(command, Post | Edit | Delete)
        self.opening = 0
        number = command.number
        row = self.row(number)
        if isinstance(command, Post):
            key = command.sender_id, command.key or ""
            if command.key is not None and key in self.keys:
                return Repeated(self.keys[key][0])
            if command.epoch and command.epoch < self.live_epoch:
                return Straggler(self.live_epoch)
            if row is not None or command.body in self.faulty:
                self.last_number = max(self.last_number, number)
                self.aside.add(number)
                return Failed("at fault")
            message = Message(
                number, command.sender_id, command.sender_ref, command.sender_name, command.body, command.created_at
            )
            self._put(number, Row(message, 0))
            if command.key is not None:
                self.keys[key] = number, command.body_hash or b""
            return number
        if place_of(command.order)[0] < self.live_epoch:
            return Straggler(self.live_epoch)
        if row is None and number in self.aside:
            return Failed("its message is set aside")
        if row is None:
            return NotFound("There is no such message in this chat.")
        if isinstance(command, Delete):
            self.last_number = max(self.last_number, number)
            self._put(number, None)
        elif command.order > row.changed:
            was = row.message
            changed = Message(
                number, was.sender_id, was.sender_ref, was.sender_name, command.body, was.created_at, command.edited_at
            )
            self._put(number, Row(changed, command.order))
        return None

    def _put(self, number: int, row: Row | None) -> None:
        self.rows.setdefault(number, []).append((self.state, row))

    def aside_now(self, numbers: Sequence[int]) -> None:
        """Set the numbers of which commands are set aside."""
        self.told_aside = set(numbers)

    def set_live(self, epoch: int) -> bool:
        if self.opening != epoch:
            return False
        self.live_epoch, self.opening = epoch, 0
        return True

    # Reading -----------------------------------------------------------------------------------------------------

    def row(self, number: int, state: int | None = None) -> Row | None:
        for at, row in reversed(self.rows.get(number, ())):
            if state is None or at <= state:
                return row
        return None

    def stored(self, at: Position | None = None) -> dict[int, Row]:
        """Return the rows as a replica at this position has them."""
        state = self.states[at] if at is not None and self.copies else None
        found = {number: self.row(number, state) for number in self.rows}
        return {number: row for number, row in found.items() if row is not None}

    async def message(self, key: ChatKey, number: int, *, at: Position | None = None) -> Message | None:
        row = self.stored(at).get(number)
        return row and row.message

    async def messages(
        self,
        key: ChatKey,
        *,
        limit: int,
        before: int | None = None,
        after: int | None = None,
        offset: int = 0,
        at: Position | None = None,
    ) -> list[Message]:
        stored = self.stored(at)
        if after is not None:
            return [stored[number].message for number in sorted(stored) if number > after][:limit][::-1]
        below = [number for number in sorted(stored, reverse=True) if before is None or number < before]
        return [stored[number].message for number in below[offset : offset + limit]]

    async def numbered(self, key: ChatKey, numbers: Sequence[int], *, at: Position | None = None) -> list[Message]:
        stored = self.stored(at)
        return [stored[number].message for number in numbers if number in stored]

    async def with_refs(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages)

    async def ordered(self, key: ChatKey, numbers: Sequence[int]) -> list[tuple[Message, int]]:
        found = [(row.message, row.changed) for row in map(self.row, numbers) if row is not None]
        self.asked.append(list(numbers))
        late, self.late = self.late, None
        if late is not None:
            await late.wait()
        return found

    async def transactions(self, shard: int) -> int:
        return self.applied

    async def set_aside(self, key: ChatKey, numbers: Sequence[int]) -> set[int]:
        return self.told_aside & set(numbers)

    async def posted(self, key: ChatKey, sender_id: int, idempotency_key: str) -> tuple[int, bytes] | None:
        return self.keys.get((sender_id, idempotency_key))

    async def chat(self, key: ChatKey) -> Chat | None:
        return Chat(key.number, None, 0, 0)
