"""Delivers each message to the listeners of its chat when it is acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hubbub.chat.model import ChatKey

# What one listener may have waiting: so many messages, and bytes of them, for the chat can be read again for one that
# reads slowly; and so many numbers of changed messages, which can't be found again in the chat, and take 0.3 MB.
_MOST_MESSAGES = 200
_MOST_BYTES = 256 * 1024
MOST_CHANGED = 10_000
# And all listeners of a process together: where there are many, each has as much less.
_MOST_BYTES_IN_ALL = 64 * 1024 * 1024
_MOST_CHANGED_IN_ALL = 1_000_000


class Event(NamedTuple):
    """One event of a chat. ``item`` is a new message as JSON; None means that the message was edited or deleted."""

    number: int
    item: bytes | None


class Taken(NamedTuple):
    """New messages, and the numbers of edited or deleted ones in the order of their first change."""

    messages: list[Event]
    changed: list[int]


class Room:
    """What each of so many listeners may have waiting."""

    def __init__(self) -> None:
        self._listeners = 0
        self.bytes = _MOST_BYTES
        self.changes = MOST_CHANGED

    def add(self, listeners: int) -> None:
        """That many more, or fewer below zero."""
        self._listeners += listeners
        self.bytes = min(_MOST_BYTES, _MOST_BYTES_IN_ALL // max(self._listeners, 1))
        self.changes = min(MOST_CHANGED, _MOST_CHANGED_IN_ALL // max(self._listeners, 1))


class Listener:
    """The events of a chat that one listener has not taken yet. None are added once it has ``ended``.

    Invariants: either every new message since the last ``take`` is in ``_messages``, or ``missed`` is set and the chat
    has to be read again. Either every change since then is in ``_changed``, or ``lost`` is set, and stays so.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.missed = False
        self.lost = False
        self.ended = False
        self._messages: deque[Event] = deque()
        self._changed: dict[int, None] = {}
        self._bytes = 0
        self._wake = asyncio.Event()

    def tell(self, event: Event) -> None:
        if event.item is None:
            self._change(event.number)
        elif not self.missed:
            self._bytes += len(event.item)
            if len(self._messages) >= _MOST_MESSAGES or self._bytes > self.room.bytes:
                self.miss()
            else:
                self._messages.append(event)
                self._wake.set()

    def _change(self, number: int) -> None:
        if len(self._changed) < self.room.changes or number in self._changed:
            self._changed[number] = None
        else:
            self.lost = True
        self._wake.set()

    def miss(self) -> None:
        """New messages may have been lost. Changes that wait are kept: reading the chat again does not show them."""
        self._forget_messages()
        self.missed = True
        self._wake.set()

    def lose(self) -> None:
        """New messages and changes may have been lost."""
        self.lost = True
        self.miss()

    def end(self) -> None:
        self.ended = True
        self._wake.set()

    async def take(self, within_s: float) -> Taken:
        """The events since the last call; waits up to ``within_s`` seconds for one. A change is never taken before its
        message, unless that was missed.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            return Taken([], [])
        self._wake.clear()
        taken = Taken(list(self._messages), list(self._changed))
        self._forget_messages()
        self._changed.clear()
        return taken

    def _forget_messages(self) -> None:
        self._messages.clear()
        self._bytes = 0


class Feed:
    """The listeners of a process. ``watch`` is called with a chat when its first listener comes, ``unwatch`` when its
    last one has gone."""

    def __init__(
        self,
        watch: Callable[[ChatKey], None] = lambda _: None,
        unwatch: Callable[[ChatKey], None] = lambda _: None,
    ) -> None:
        self._listeners: dict[ChatKey, set[Listener]] = {}
        self._room = Room()
        self._watch = watch
        self._unwatch = unwatch
        self._ended = False

    def chats(self) -> list[ChatKey]:
        """The chats that have listeners."""
        return list(self._listeners)

    def heard(self, key: ChatKey) -> bool:
        """Whether the chat has listeners; if not, its messages need not be encoded for them."""
        return key in self._listeners

    def publish(self, key: ChatKey, event: Event) -> None:
        for listener in self._listeners.get(key, ()):
            listener.tell(event)

    def missed(self, key: ChatKey | None = None) -> None:
        """Events may have been lost, of one chat or of all chats: their listeners read again."""
        for listeners in self._listeners.values() if key is None else [self._listeners.get(key, ())]:
            for listener in listeners:
                listener.miss()

    def lost(self) -> None:
        """Events of all chats may have been lost, also changes of messages: their listeners load the chat again."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.lose()

    def end(self) -> None:
        """This process stops: ends every listener, and each that comes from now on at once."""
        self._ended = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.end()

    @contextmanager
    def listen(self, key: ChatKey) -> Iterator[Listener]:
        listener = Listener(self._room)
        if self._ended:
            listener.end()
        listeners = self._listeners.get(key)
        if listeners is None:
            listeners = self._listeners[key] = set()
            self._watch(key)
        listeners.add(listener)
        self._room.add(1)
        try:
            yield listener
        finally:
            listeners.discard(listener)
            self._room.add(-1)
            if not listeners and self._listeners.get(key) is listeners:
                del self._listeners[key]
                self._unwatch(key)
