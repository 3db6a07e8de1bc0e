"""A chat as Server-Sent Events (WHATWG HTML, section 9.2): each message as it is acknowledged, and each change of one.

Each message is sent at least once to a client that is connected or returns with ``Last-Event-ID``; http.stream_position
says why, and what an id means. Messages are read and sent slice by slice, the next slice when the client has taken the
one before. So a stream holds one slice, the numbers of changed messages, and what its listener holds (chat.feed),
however slow its client is. Changed messages are read by their numbers, and sent as they are now; if there are too many
numbers, the stream ends and says so. The session is checked once a second, and the membership after each reading,
before any of it is sent.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext

import msgspec

from hubbub.chat.caller import Caller
from hubbub.chat.chats import ChatHandle, Chats
from hubbub.chat.encoding import encode_message
from hubbub.chat.errors import ChatError, Unavailable
from hubbub.chat.feed import Event, Feed, Listener
from hubbub.chat.model import ChatKey
from hubbub.http.problems import status_of
from hubbub.http.stream_position import StreamPosition
from hubbub.http.turns import UNKNOWN_S, Turns

CHECK_S = 1.0  # how long a stream may go on after its session has ended
HEARTBEAT_S = 5.0
SLICE = 25  # messages read at once
MOST_OF_SLICE = 256 * 1024  # bytes of them that are sent at once; the last may be over
_SLICES_AT_ONCE = 4  # by all streams of a process, in one turn of the loop
_TELLING_S = 0.00025  # to send one listener what was just acknowledged
_SOON_S = 0.2  # after which a missing number is looked up
_AGAIN_S = 1.0  # and how often from then on
_RETRY = b"retry: 1000\n\n"
_STOPPING = b": this process is stopping, connect again\n\n"


class Slices:
    """The turns in which a process's streams read: many that read at once would hold the event loop. In the queue for
    ``turns`` of the loop they wait behind users who have asked for less.
    """

    def __init__(self, turns: Turns) -> None:
        self._free = asyncio.Semaphore(_SLICES_AT_ONCE)
        self.turns = turns

    async def __aenter__(self) -> None:
        await self._free.acquire()

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.sleep(0)  # lets all others run first
        finally:
            self._free.release()


class Stream:
    """One listener's stream of a chat, entered as ``chat``, from the message after the number ``after``.

    ``again`` checks the credentials of the request once more.
    """

    def __init__(
        self,
        chats: Chats,
        feed: Feed,
        slices: Slices,
        again: Callable[[], Awaitable[Caller]],
        caller: Caller,
        key: ChatKey,
        chat: ChatHandle,
        after: int,
    ) -> None:
        self._chats = chats
        self._feed = feed
        self._slices = slices
        self._again = again
        self._caller = caller
        self._key = key
        self._chat = chat
        self._position = StreamPosition(after)
        self._behind = False  # the latest reading could not be sent completely
        self._changed: dict[int, None] = {}  # the numbers of changed messages that are not sent yet
        self._look_at = 0.0  # when to look at the next of these; later once an answer may lag
        self._checked = self._heard = self._read_at = time.monotonic()

    async def events(self) -> AsyncIterator[bytes]:
        """The pieces of the response. Ends with a reason when the caller may no longer listen, or when that can't be
        checked; and when the process stops, so that the listener connects to another process.
        """
        with self._feed.listen(self._key) as listener:
            yield _RETRY
            try:
                async for piece in self._missed():
                    yield piece
                while not listener.ended:
                    async for piece in self._next(listener):
                        yield piece
                yield _STOPPING
            except ChatError as error:
                reason = {"status": status_of(error), "error": error.sentence}
                yield b"event: end\ndata: %b\n\n" % msgspec.json.encode(reason)

    async def _next(self, listener: Listener) -> AsyncIterator[bytes]:
        messages, changed = await listener.take(max(0.0, self._next_look() - time.monotonic()))
        self._changed.update(dict.fromkeys(changed))
        if listener.lost or len(self._changed) > listener.room.changes:
            raise Unavailable("More messages were changed than could be sent. Load the chat again, then connect again.")
        await self._check()
        now = time.monotonic()
        if messages:
            await self._turn(_TELLING_S)
            self._heard = now
            await self._enter()  # a removed member gets nothing more
            yield b"".join([self._happened(event, listener) for event in messages])
        quiet = now - self._heard >= HEARTBEAT_S
        if quiet:
            self._heard = now
            yield b":\n\n"
        if listener.missed or quiet or (self._behind and now - self._read_at >= _AGAIN_S):
            listener.missed = False
            async for piece in self._missed():
                yield piece
        elif self._lacking_at() <= now:
            self._read_at = now
            yield await self._lacking()
        if self._changed and self._look_at <= time.monotonic():
            # One message is little to read: it waits for no turn, so an edit soon reaches all listeners of a chat.
            async with self._slices if len(self._changed) > 1 else nullcontext():
                piece = await self._changes()
            yield piece

    def _next_look(self) -> float:
        return min(self._checked + CHECK_S, self._lacking_at(), self._look_at if self._changed else float("inf"))

    def _lacking_at(self) -> float:
        """When to look up the missing numbers."""
        since = self._position.missing_since
        if since is None:
            return float("inf")
        return max(since + _SOON_S, self._read_at + (_SOON_S if since > self._read_at else _AGAIN_S))

    async def _turn(self, least_s: float) -> None:
        await self._slices.turns.turn(self._caller.user.ref, least_s)

    # Who may listen ----------------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        """Enter the chat again. Raises NotFound when the caller is no longer a member."""
        self._chat = await self._chats.enter(self._caller, self._key)

    async def _check(self) -> None:
        """Check, once a second, that the session and the membership are still valid."""
        if time.monotonic() - self._checked < CHECK_S:
            return
        self._checked = time.monotonic()
        self._caller = await self._again()
        await self._enter()

    # What is sent ------------------------------------------------------------------------------------------------

    async def _missed(self) -> AsyncIterator[bytes]:
        """Sends the messages above the id that were not sent."""
        after = self._position.id
        more = True
        while more:
            async with self._slices:
                await self._turn(UNKNOWN_S)
                piece, after, more = await self._slice(after)
            yield piece
            await self._check()

    async def _slice(self, after: int) -> tuple[bytes, int, bool]:
        """Read once: the events to send, the last number that they cover, and whether there is more."""
        self._read_at = time.monotonic()
        messages, lag, still_open = await self._chat.since(after, SLICE)
        await self._enter()  # a removed member gets nothing that came after the removal
        waiting, pieces = deque(still_open), list[bytes]()
        self._behind = lag
        size = 0
        for message in messages:
            news = self._position.read(message.number, waiting, sure=not lag)
            if news is None:
                self._behind = True
                return b"".join(pieces), after, False
            after = message.number
            if news:
                pieces.append(self._message(encode_message(message)))
                size += len(pieces[-1])
                if size >= MOST_OF_SLICE:
                    return b"".join(pieces), after, True
        return b"".join(pieces), after, len(messages) == SLICE

    async def _lacking(self) -> bytes:
        """The events of missing messages that have come since."""
        numbers = self._position.missing[:SLICE]
        if not numbers:
            return b""
        messages, lag, still_open = await self._chat.numbered(numbers)
        await self._enter()
        if not lag:
            self._position.looked_for({*numbers}.difference(each.number for each in messages), still_open)
        return b"".join(self._message(encode_message(each)) for each in messages if self._position.live(each.number))

    def _happened(self, event: Event, listener: Listener) -> bytes:
        news = self._position.live(event.number)
        if news is None:
            listener.miss()
        return self._message(event.item or b"") if news else b""

    def _message(self, item: bytes) -> bytes:
        return b"id: %d\nevent: message\ndata: %b\n\n" % (self._position.id, item)

    async def _changes(self) -> bytes:
        """The events of the next changed messages; none while an answer may lag: then they are read again later."""
        numbers = list(itertools.islice(self._changed, SLICE))
        messages, lag, still_open = await self._chat.numbered(numbers)
        await self._enter()
        if lag:
            self._look_at = time.monotonic() + _AGAIN_S
            return b""
        found = {message.number: message for message in messages}
        pieces: list[bytes] = []
        size = 0
        for number in numbers:
            if size >= MOST_OF_SLICE:
                break  # the others are looked at next
            del self._changed[number]
            if number in found:
                pieces.append(b"event: edited\ndata: %b\n\n" % encode_message(found[number]))
                size += len(pieces[-1])
            elif number not in still_open:
                pieces.append(b'event: deleted\ndata: {"messageNumber":%d}\n\n' % number)
            else:
                self._changed[number] = None
                self._look_at = time.monotonic() + _AGAIN_S
        return b"".join(pieces)
