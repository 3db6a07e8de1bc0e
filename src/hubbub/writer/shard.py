"""Brings a shard's deliveries into the store, and says in the hot data what is stored now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from hubbub.chat.commands import (
    Applied,
    Delivery,
    Failed,
    MessageCommand,
    OpenChat,
    Opened,
    Outcome,
    Position,
    PostMessage,
)
from hubbub.chat.errors import ChatError, Superseded, Unavailable
from hubbub.chat.model import ChatKey
from hubbub.measures import WriteMeasures
from hubbub.tracing import Tracing
from hubbub.writer.writer import waited_s

T = TypeVar("T")

log = logging.getLogger("hubbub.writer")

_HOUSE_S = 5
_RETRIES_S = (0.1, 0.5, 2.0)
_STORE_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class DeliveryStore(Protocol):
    """See stores.mysql."""

    def apply_deliveries(self, shard: int, deliveries: Sequence[Delivery], *, one_by_one: bool = False) -> Applied: ...
    def set_live(self, chat: ChatKey, epoch: int) -> None: ...
    def reserve(self, post: PostMessage) -> None: ...
    def count_messages(self) -> None: ...
    def forget(self, now: int) -> None: ...


class Shown(Protocol):
    """The hot data that readers see, see caches.redis."""

    async def seed(self, command: OpenChat, opened: Opened, position: Position) -> bool: ...
    async def stored(
        self, chat: ChatKey, commands: Sequence[tuple[MessageCommand, Outcome]], position: Position
    ) -> None: ...


class DeadLetter(NamedTuple):
    """A command that can't be stored, and why."""

    command: MessageCommand
    reason: str


class ShardWriter:
    """``fault`` says why the store takes nothing now; None when it does."""

    def __init__(self, store: DeliveryStore, shown: Shown) -> None:
        self._store = store
        self._shown = shown
        self._shown_fault = False
        self.fault: str | None = None
        self.measures = WriteMeasures()
        self.tracing: Tracing | None = None

    async def write(self, shard: int, deliveries: Sequence[Delivery]) -> list[DeadLetter]:
        """Store the deliveries, however long it takes.

        Returns:
            The commands that can't be stored; everything else is.
        """
        dead: list[DeadLetter] = []
        together: list[Delivery] = []
        for delivery in deliveries:
            if delivery.commands and isinstance(delivery.commands[0], OpenChat):
                # The chat must be opened, or not, before anything behind the marker is stored.
                dead += await self._write_together(shard, together)
                dead += await self._write_together(shard, [delivery])
                together = []
            else:
                together.append(delivery)
        return dead + await self._write_together(shard, together)

    async def _write_together(self, shard: int, deliveries: Sequence[Delivery]) -> list[DeadLetter]:
        if not deliveries:
            return []
        begun, begun_ns = time.monotonic(), time.time_ns()
        position, outcomes = await self._apply(shard, deliveries)
        commands = [command for delivery in deliveries for command in delivery.commands]
        if commands:
            self.measures.stored(len(commands), time.monotonic() - begun, waited_s(commands[0]))
        if self.tracing is not None:
            self.tracing.stored(commands, begun_ns, time.time_ns())
        dead: list[DeadLetter] = []
        by_chat: dict[ChatKey, list[tuple[MessageCommand, Outcome]]] = {}
        for delivery, results in zip(deliveries, outcomes, strict=True):
            for command, outcome in zip(
                delivery.commands, [None] * len(delivery.commands) if results is None else results, strict=True
            ):
                if results is not None and (reason := _dead(command, outcome)) is not None:
                    dead.append(DeadLetter(command, reason))
                elif isinstance(command, OpenChat):
                    await self._open(command, outcome, position)
                else:
                    # Of what was stored before, a post's outcome is not known any more; only its traces are removed.
                    by_chat.setdefault(command.chat, []).append((command, outcome))
        self.measures.dead += len(dead)
        for letter in dead:
            if isinstance(letter.command, PostMessage):
                await self._until_stored(self._store.reserve, letter.command)
        await self._show(by_chat, position)
        return dead

    async def _apply(self, shard: int, deliveries: Sequence[Delivery]) -> Applied:
        for pause in _RETRIES_S:
            try:
                return await self._until_stored(self._store.apply_deliveries, shard, deliveries)
            except Exception:
                log.exception("%d deliveries of shard %d can't be stored; trying again.", len(deliveries), shard)
                self.measures.retries += 1
                await asyncio.sleep(pause)
        return await self._until_stored(
            lambda: self._store.apply_deliveries(shard, deliveries, one_by_one=True),
        )

    async def _until_stored(self, work: Callable[..., T], *arguments: Any) -> T:
        """The store may be away for hours; what is not stored stays in the queue, and nothing behind it is taken."""
        attempt = 0
        while True:
            try:
                result = await asyncio.to_thread(work, *arguments)
            except Unavailable as error:
                if self.fault != error.sentence:
                    self.fault = error.sentence
                    log.error("The store takes nothing: %s", error.sentence)
                await asyncio.sleep(_STORE_PAUSES_S[min(attempt, len(_STORE_PAUSES_S) - 1)])
                attempt += 1
                continue
            if self.fault is not None:
                self.fault = None
                log.warning("The store takes writes again.")
            return result

    async def _open(self, command: OpenChat, outcome: Outcome, position: Position) -> None:
        if not isinstance(outcome, Opened):  # stored before: then whoever waits has announced another marker
            return
        try:
            live = await self._shown.seed(command, outcome, position)
        except Unavailable:
            return
        if live:
            await self._until_stored(self._store.set_live, command.chat, outcome.epoch)

    async def _show(self, by_chat: dict[ChatKey, list[tuple[MessageCommand, Outcome]]], position: Position) -> None:
        results = await asyncio.gather(
            *(self._shown.stored(chat, commands, position) for chat, commands in by_chat.items()),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, Unavailable):
                raise failure
        if bool(failures) != self._shown_fault:
            self._shown_fault = bool(failures)
            log.warning("The hot data %s.", "can't be kept up to date" if failures else "is kept up to date again")


async def keep_house(store: DeliveryStore, now: Callable[[], int]) -> None:
    """The work that can wait: counts every few seconds, and every hour what may be forgotten. Runs until cancelled.

    A count is exact whenever it is read; folding it only keeps reading it cheap.
    """
    turn = 0
    while True:
        try:
            await asyncio.to_thread(store.count_messages)
            if turn % (3600 // _HOUSE_S) == 0:
                await asyncio.to_thread(store.forget, now())
        except Unavailable as error:
            log.info("Housekeeping waits for the store: %s", error.sentence)
        turn += 1
        await asyncio.sleep(_HOUSE_S)


def _dead(command: MessageCommand, outcome: Outcome) -> str | None:
    """Why a command that somebody was told is accepted could not be stored."""
    if isinstance(outcome, Failed):
        return outcome.reason
    if isinstance(command, PostMessage) and isinstance(outcome, ChatError) and not isinstance(outcome, Superseded):
        return f"{type(outcome).__name__}: {outcome.sentence}"
    return None
