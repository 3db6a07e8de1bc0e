"""Tells those who listen to a chat of each message as it is acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hubbub.chat.model import ChatKey

_MOST_WAITING = 1000


class Event(NamedTuple):
    """``item`` is a new message as JSON; None says that the message was edited or deleted."""

    number: int
    item: bytes | None


class Listener:
    """What has happened in a chat and was not taken yet.

    Invariant: either every event since the last ``take`` is in ``_waiting``, or ``missed`` is set and the chat has to
    be read again.
    """

    def __init__(self) -> None:
        self.missed = False
        self._waiting: deque[Event] = deque()
        self._wake = asyncio.Event()

    def tell(self, event: Event) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self.miss()
        elif not self.missed:
            self._waiting.append(event)
            self._wake.set()

    def miss(self) -> None:
        self._waiting.clear()
        self.missed = True
        self._wake.set()

    async def take(self, within_s: float) -> list[Event]:
        """What has happened, or nothing when nothing has for so long, or when something was missed."""
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        self._wake.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class Feed:
    """One for each process. ``watch`` and ``unwatch`` are told of a chat's first listener and of its last."""

    def __init__(
        self,
        watch: Callable[[ChatKey], None] = lambda _: None,
        unwatch: Callable[[ChatKey], None] = lambda _: None,
    ) -> None:
        self._listeners: dict[ChatKey, set[Listener]] = {}
        self._watch = watch
        self._unwatch = unwatch

    @property
    def listening(self) -> int:
        return sum(len(listeners) for listeners in self._listeners.values())

    def chats(self) -> list[ChatKey]:
        """Those that somebody listens to."""
        return list(self._listeners)

    def heard(self, key: ChatKey) -> bool:
        """Whether anybody listens; a message need not be encoded for nobody."""
        return key in self._listeners

    def publish(self, key: ChatKey, event: Event) -> None:
        for listener in self._listeners.get(key, ()):
            listener.tell(event)

    def missed(self) -> None:
        """Events may have been lost: every listener reads again."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.miss()

    @contextmanager
    def listen(self, key: ChatKey) -> Iterator[Listener]:
        listener = Listener()
        listeners = self._listeners.get(key)
        if listeners is None:
            listeners = self._listeners[key] = set()
            self._watch(key)
        listeners.add(listener)
        try:
            yield listener
        finally:
            listeners.discard(listener)
            if not listeners and self._listeners.get(key) is listeners:
                del self._listeners[key]
                self._unwatch(key)
