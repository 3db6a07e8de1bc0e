"""Limits the pages of much text that are read and encoded at once. A page of the longest messages is 6 MB of JSON, and
takes some 20 ms to encode: it is encoded in slices, and the event loop does other things between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from hubbub.chat.encoding import Item, encode_messages, page_of
from hubbub.chat.model import Message, MessagesRead, Page
from hubbub.chat.user_turns import SomeOfEach, UserTurns

LARGE = 262_144  # characters of text; to encode as many takes up to 5 ms
SLICE = 512 * 1024  # bytes of JSON that are made before the loop goes on
AT_ONCE = 4
FEW = 25  # messages; no more can't be large


def is_large(messages: Sequence[Message]) -> bool:
    return sum([len(message.body) for message in messages]) > LARGE


async def encode_in_slices(messages: Sequence[Message]) -> list[Item]:
    """The messages as encode_messages gives them. Other work runs between the slices."""
    items: list[Item] = []
    size = 0
    for message in messages:
        items += encode_messages((message,))
        size += len(items[-1][1])
        if size >= SLICE:
            size = 0
            await asyncio.sleep(0)
    return items


class LargePages:
    """The pages that are large, or may be. Of each user, one with more than FEW messages is read at a time. Of those
    that are large, AT_ONCE are encoded, users taking turns. Those that wait hold no messages: these are read again when
    the turn has come, as more may wait than there is memory for.
    """

    def __init__(self) -> None:
        self._reading = SomeOfEach(1)
        self.turns = UserTurns(AT_ONCE)

    def reading(self, user_id: int, limit: int) -> AbstractAsyncContextManager[None]:
        """The user's turn to read a page of ``limit`` messages."""
        return nullcontext() if limit <= FEW else self._reading.turn(user_id)

    async def page(self, user_id: int, read: Callable[[], Awaitable[MessagesRead]], limit: int) -> Page:
        """A page of what ``read`` returns, newest first; more than ``limit`` messages say that there are older ones."""
        async with self.reading(user_id, limit):
            return await self.encoded(user_id, read, limit)

    async def encoded(self, user_id: int, read: Callable[[], Awaitable[MessagesRead]], limit: int) -> Page:
        """As ``page``, in the turn of ``reading``."""
        shown = await read()
        if not is_large(shown.messages):
            items = encode_messages(shown.messages[:limit])
        else:
            kept = shown if self.turns.free else None
            del shown
            async with self.turns.turn(user_id):
                shown = kept or await read()
                items = await encode_in_slices(shown.messages[:limit])
        return page_of(items, more=len(shown.messages) > limit)._replace(lag=shown.lag)
