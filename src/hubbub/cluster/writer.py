"""Applies a shard's deliveries to the store, and updates Redis with what is stored."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from hubbub.chat.commands import Outcome
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.cluster.protocol import (
    Applied,
    AppliedBefore,
    Barrier,
    Delete,
    Delivery,
    Edit,
    Failed,
    OpenChat,
    Opened,
    Position,
    Post,
    kind_of,
)
from hubbub.measures import WriteMeasures, waited_s
from hubbub.tracing import Tracing

T = TypeVar("T")

log = logging.getLogger("hubbub.writer")

_STORE_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_TELL_AGAIN_S = 0.5
_MOST_UNTOLD = 50_000  # commands, without their texts


class DeliveryStore(Protocol):
    """See cluster.deliveries."""

    def apply(self, shard: int, shards: int, deliveries: Sequence[Delivery]) -> Applied: ...
    def set_live(self, command: OpenChat, epoch: int, slot: int) -> bool: ...


class ReadModel(Protocol):
    """The read model, which a writer updates; see cluster.redis.stored. Each async method raises Unavailable when the
    read model can't be updated now."""

    def slot_of(self, command: OpenChat) -> int: ...
    async def seed(self, command: OpenChat, opened: Opened, position: Position) -> bool: ...
    async def live(self, command: OpenChat, epoch: int) -> None: ...
    async def drained(self, shard: int, barrier: Barrier) -> None: ...
    async def stored(
        self, chat: ChatKey, commands: Sequence[tuple[Post | Edit | Delete, Outcome]], position: Position
    ) -> None: ...


class _Untold(NamedTuple):
    """Stored commands of a chat that Redis does not know of yet, and the position at which they were stored."""

    chat: ChatKey
    commands: list[Post | Edit | Delete]
    position: Position


class ShardWriter:
    """Writes the shards' deliveries. ``fault`` says why the store takes no writes now; None when it does. ``shards`` is
    the number of shards.

    ``_untold`` has the commands whose update of Redis failed; ``tell_again`` retries them. Without that, a Redis that
    refuses writes for a while and keeps its data would never fill an entry whose post was not shown either.
    """

    def __init__(self, store: DeliveryStore, read_model: ReadModel, shards: int) -> None:
        self._store = store
        self._read_model = read_model
        self._shown_fault = False
        self._untold: deque[_Untold] = deque()
        self.shards = shards
        self.fault: str | None = None
        self.measures = WriteMeasures()
        self.tracing: Tracing | None = None

    async def write(self, shard: int, deliveries: Sequence[Delivery]) -> None:
        """Store the deliveries, however long that takes.

        Raises:
            SequenceGap, ShardStopped: see cluster.deliveries. The transactions before the failed one are stored.
        """
        together: list[Delivery] = []
        for delivery in deliveries:
            if delivery.commands and isinstance(delivery.commands[0], OpenChat | Barrier):
                # The chat must be opened, or not, before anything behind the marker is stored.
                await self._write_together(shard, together)
                await self._write_together(shard, [delivery])
                together = []
            else:
                together.append(delivery)
        await self._write_together(shard, together)

    async def _write_together(self, shard: int, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        begun, begun_ns = time.monotonic(), time.time_ns()
        position, outcomes = await self.until_stored(self._store.apply, shard, self.shards, deliveries)
        commands = [command for delivery in deliveries for command in delivery.commands]
        if commands:
            self.measures.stored(len(commands), time.monotonic() - begun, waited_s(commands[0]))
        if self.tracing is not None:
            self.tracing.stored(commands, begun_ns, time.time_ns())
        by_chat: dict[ChatKey, list[tuple[Post | Edit | Delete, Outcome]]] = {}
        for delivery, results in zip(deliveries, outcomes, strict=True):
            for command, outcome in zip(
                delivery.commands, results or [AppliedBefore()] * len(delivery.commands), strict=True
            ):
                if isinstance(outcome, Failed):
                    self.measures.dead += 1
                    log.error(
                        "A %s of shard %d can't be stored and is set aside: %s",
                        kind_of(command),
                        shard,
                        outcome.reason.split(":")[0],
                    )
                if isinstance(command, OpenChat):
                    await self._open(command, outcome, position)
                elif isinstance(command, Barrier):
                    await self._quietly(self._read_model.drained(shard, command))
                else:
                    by_chat.setdefault(command.chat, []).append((command, outcome))
        await self._show(by_chat, position)

    async def until_stored(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run ``work``, and retry until the store accepts it. That may take hours: deliveries stay in the queue until
        they are stored."""
        attempt = 0
        while True:
            try:
                result = await asyncio.to_thread(work, *arguments)
            except Unavailable as error:
                self.measures.retries += 1
                if self.fault != error.sentence:
                    self.fault = error.sentence
                    log.error("The store takes no writes: %s", error.sentence)
                await asyncio.sleep(_STORE_PAUSES_S[min(attempt, len(_STORE_PAUSES_S) - 1)])
                attempt += 1
                continue
            if self.fault is not None:
                self.fault = None
                log.warning("The store takes writes again.")
            return result

    async def _open(self, command: OpenChat, outcome: Outcome, position: Position) -> None:
        """Steps (b), (c) and (d) of rule 6. If one fails, another marker is announced a little later."""
        if not isinstance(outcome, Opened):
            return
        try:
            if await self._read_model.seed(command, outcome, position) and await self.until_stored(
                self._store.set_live, command, outcome.epoch, self._read_model.slot_of(command)
            ):
                await self._read_model.live(command, outcome.epoch)
        except Unavailable as error:
            log.info("A chat was not opened: %s", error.sentence)

    async def _quietly(self, telling: Any) -> None:
        try:
            await telling
        except Unavailable as error:
            log.info("Redis could not be informed that a queue is drained: %s", error.sentence)

    async def _show(
        self, by_chat: dict[ChatKey, list[tuple[Post | Edit | Delete, Outcome]]], position: Position
    ) -> None:
        results = await asyncio.gather(
            *(self._read_model.stored(chat, commands, position) for chat, commands in by_chat.items()),
            return_exceptions=True,
        )
        untold = []
        for (chat, commands), result in zip(by_chat.items(), results, strict=True):
            if isinstance(result, Unavailable):
                untold.append(_Untold(chat, [_without_text(command) for command, _ in commands], position))
            elif result is not None:
                raise result
        if bool(untold) != self._shown_fault:
            self._shown_fault = bool(untold)
            log.warning(
                "Redis %s.", "can't be informed of what is stored" if untold else "is informed of what is stored again"
            )
        self._untold += untold
        while sum(len(each.commands) for each in self._untold) > _MOST_UNTOLD:
            dropped = self._untold.popleft()
            log.error(
                "Redis will not be informed of %d stored commands: too many are waiting for that.",
                len(dropped.commands),
            )

    async def tell_again(self) -> None:
        """Retry the failed updates of Redis, in the way of repeated deliveries (rule 8). Runs until cancelled."""
        while True:
            await asyncio.sleep(_TELL_AGAIN_S)
            while self._untold:
                chat, commands, position = self._untold[0]
                try:
                    await self._read_model.stored(chat, [(command, AppliedBefore()) for command in commands], position)
                except Unavailable:
                    break
                if self._untold and self._untold[0].commands is commands:
                    self._untold.popleft()


def _without_text(command: Post | Edit | Delete) -> Post | Edit | Delete:
    """The command without its text: an update for a command that was applied before reads the text from the store."""
    return command if isinstance(command, Delete) else replace(command, body="")
