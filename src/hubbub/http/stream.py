"""A chat as Server-Sent Events (WHATWG HTML, section 9.2): each message as it is acknowledged, and each change of one.

An event is told at least once to whoever is connected or comes back with ``Last-Event-ID``. Its id is a number up to
which everything has been told, which is that of the message itself unless an earlier one is still on its way (in a
cluster, where numbers of several senders are acknowledged in any order). Who comes back may so be told of a message
twice, and never misses one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from hubbub.chat.chats import Chats
from hubbub.chat.encoding import encode_message
from hubbub.chat.errors import ChatError, NotFound
from hubbub.chat.feed import Event, Feed, Listener
from hubbub.chat.model import ChatKey, User
from hubbub.http.problems import STATUS_OF

HEARTBEAT_S = 5.0
_GAP_S = 30.0  # by then a number that was given is stored, or its write has failed
_REMEMBERED = 2000
_RETRY = b"retry: 1000\n\n"


class Stream:
    """One listener's view of a chat. Invariant: all that was acknowledged up to ``_mark`` has been told."""

    def __init__(
        self, chats: Chats, feed: Feed, enter: Callable[[], Awaitable[User]], user: User, key: ChatKey, after: int
    ) -> None:
        self._chats = chats
        self._feed = feed
        self._enter = enter
        self._user = user
        self._key = key
        self._mark = after
        self._ahead: set[int] = set()  # told, and above the mark
        self._told: dict[int, None] = {}  # the latest numbers that were told
        self._gap_since = 0.0

    async def events(self) -> AsyncIterator[bytes]:
        """Pieces of the response. Ends when the caller may no longer listen, or the service can't tell."""
        with self._feed.listen(self._key) as listener:
            yield _RETRY
            try:
                async for piece in self._missed():
                    yield piece
                while True:
                    async for piece in self._next(listener):
                        yield piece
            except ChatError as error:
                status = STATUS_OF[type(error)]
                yield b"event: end\ndata: %b\n\n" % msgspec.json.encode({"status": status, "error": error.sentence})

    async def _next(self, listener: Listener) -> AsyncIterator[bytes]:
        events = await listener.take(HEARTBEAT_S)
        if events:
            await self._chats.must_exist(self._user, self._key)  # who was removed hears nothing more
            for event in events:
                piece = await self._told_of(event)
                if piece is not None:
                    yield piece
        if listener.missed or not events:
            listener.missed = False
            self._user = await self._enter()
            yield b":\n\n"
            async for piece in self._missed():
                yield piece

    async def _missed(self) -> AsyncIterator[bytes]:
        """What is there above the mark and was not told."""
        after = self._mark
        while True:
            messages = await self._chats.since(self._user, self._key, after)
            for message in messages:
                after = message.number
                if message.number not in self._told:
                    yield self._new(message.number, encode_message(message))
            if len(messages) < 100:
                return

    async def _told_of(self, event: Event) -> bytes | None:
        if event.item is None:
            return await self._changed(event.number)
        return None if event.number in self._told else self._new(event.number, event.item)

    def _new(self, number: int, item: bytes) -> bytes:
        self._told[number] = None
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        self._ahead.add(number)
        self._advance()
        return b"id: %d\nevent: message\ndata: %b\n\n" % (self._mark, item)

    def _advance(self) -> None:
        """Move the mark over all that was told, and over a number that has been missing for long."""
        now = time.monotonic()
        while self._ahead:
            lowest = min(self._ahead)
            if lowest > self._mark + 1:
                self._gap_since = self._gap_since or now
                if now - self._gap_since < _GAP_S:
                    return
            self._gap_since = 0.0
            self._ahead.discard(lowest)
            self._mark = max(self._mark, lowest)

    async def _changed(self, number: int) -> bytes:
        try:
            message = await self._chats.message(self._user, self._key, number)
        except NotFound:
            return b'event: deleted\ndata: {"messageNumber":%d}\n\n' % number
        return b"event: edited\ndata: %b\n\n" % encode_message(message)
