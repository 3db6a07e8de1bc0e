"""Listening to a chat."""

from __future__ import annotations

from typing import Any

# Starlette would load it for the first listener, and hold the event loop for 20 ms.
import anyio._backends._asyncio  # noqa: F401
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hubbub.chat.caller import Caller
from hubbub.chat.chats import ChatHandle, Chats
from hubbub.chat.feed import Feed
from hubbub.http import schemas
from hubbub.http.fields import query
from hubbub.http.reply import EVENT_STREAM
from hubbub.http.resolver import Resolver, key_of
from hubbub.http.routing import route
from hubbub.http.stream import Slices, Stream
from hubbub.http.stream_limiter import StreamLimiter, StreamSlot
from hubbub.http.turns import Turns


class StreamRoutes:
    def __init__(self, resolver: Resolver, chats: Chats, feed: Feed, limiter: StreamLimiter, turns: Turns) -> None:
        self._resolver = resolver
        self._chats = chats
        self._feed = feed
        self._limiter = limiter
        self._slices = Slices(turns)

    @route("GET", "/applications/{token}/chats/{number}/messages/stream", query=schemas.Streaming, streams=True)
    async def stream_messages(self, request: Request) -> Response:
        """Messages as they arrive (Server-Sent Events), resuming from Last-Event-ID."""
        caller = await self._resolver.caller(request)
        key = key_of(request)
        chat = await self._chats.enter(caller, key)
        wanted = query(schemas.Streaming, request.scope["query_string"])
        if request.method == "HEAD":
            return Response(media_type=EVENT_STREAM.decode())
        after = await _start(chat, request.headers.get("last-event-id", ""), wanted.after)

        async def again() -> Caller:
            return await self._resolver.caller_again(request)

        stream = Stream(self._chats, self._feed, self._slices, again, caller, key, chat, after)
        return _Listening(stream, self._limiter.take(caller.user.id))


async def _start(chat: ChatHandle, resumed: str, wanted: int | None) -> int:
    """The number after which a stream begins. A number above the chat's newest was never sent by this chat, so it must
    not hide messages that are still to come.
    """
    after = int(resumed) if resumed.isdecimal() and len(resumed) < 17 else wanted
    page = await chat.newest(1)
    newest = page.newest or 0
    return newest if after is None else after if page.lag else min(after, newest)


class _Listening(StreamingResponse):
    """A stream as a response. It gives up its slot when it ends, for whatever reason."""

    def __init__(self, stream: Stream, slot: StreamSlot) -> None:
        # A proxy in between must pass on each event as it arrives.
        super().__init__(stream.events(), media_type=EVENT_STREAM.decode(), headers={"x-accel-buffering": "no"})
        self._slot = slot

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slot.give_up()
