"""The three routes that carry the load, free of any framework: post a message, list messages, list chats."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias, cast

import msgspec

from hubbub.chat.chats import Chats
from hubbub.chat.commands import Outcome
from hubbub.chat.errors import ChatError, Invalid
from hubbub.chat.model import ChatKey, Page
from hubbub.chat.ports import Wants
from hubbub.chat.ticket import Ticket
from hubbub.http.fields import fields, query
from hubbub.http.media import must_be_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.problems import refusal
from hubbub.http.reply import Reply
from hubbub.http.schemas import MessagePaging, NewMessage, Paging
from hubbub.http.sessions import Sessions

_TARGET = re.compile(
    rb"/api/v1/applications/(?P<token>[A-Za-z0-9_-]{1,64})/chats"
    rb"(?:/(?P<number>[1-9][0-9]{0,14})/messages)?(?:\?(?P<query>[^#]*))?"
)
_REMEMBERED = 20_000
_LONGEST_TARGET = 512
_LONGEST_KEY = 255


class Call:
    """One request to a hot route. ``headers`` has lower-case names; ``number`` is 0 where the path has none."""

    __slots__ = ("body", "headers", "number", "query", "token", "trace")

    def __init__(
        self, token: str, number: int, query: bytes, headers: dict[bytes, bytes], body: bytes, trace: str = ""
    ) -> None:
        self.token = token
        self.number = number
        self.query = query
        self.headers = headers
        self.body = body
        self.trace = trace


Handler: TypeAlias = Callable[[Call], Awaitable[Reply | Ticket]]
Match: TypeAlias = tuple[Handler, str, int, bytes, str]  # the last is the route's name


class HotRoutes:
    """A handler answers with a Reply, or with the Ticket of a message on its way to disk, see ``posted``."""

    def __init__(self, sessions: Sessions, chats: Chats) -> None:
        self._sessions = sessions
        self._chats = chats
        self._decode_message = msgspec.json.Decoder(NewMessage).decode
        self._remembered: dict[tuple[bytes, bytes], Match | None] = {}

    def match(self, method: bytes, target: bytes) -> Match | None:
        """The handler for a request line and what its path says; None when the route is not a hot one."""
        line = (method, target)
        try:
            return self._remembered[line]
        except KeyError:
            match = self._match(method, target)
            if len(target) <= _LONGEST_TARGET:
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                self._remembered[line] = match
            return match

    def _match(self, method: bytes, target: bytes) -> Match | None:
        found = _TARGET.fullmatch(target)
        if found is None:
            return None
        handler: Handler
        if found["number"] is None:
            if method != b"GET":
                return None
            handler, name = self.list_chats, "listChats"
        elif method == b"GET":
            handler, name = self.list_messages, "listMessages"
        elif method == b"POST":
            handler, name = self.post_message, "postMessage"
        else:
            return None
        return handler, found["token"].decode(), int(found["number"] or 0), found["query"] or b"", name

    async def post_message(self, call: Call) -> Reply | Ticket:
        headers = call.headers
        if b"origin" in headers:
            must_be_own_page(headers)
        key = ChatKey(call.token, call.number)
        idempotency_key = headers.get(b"idempotency-key")
        message = None
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = self._decode_message(call.body)
        wants = Wants(key, number=message is not None and idempotency_key is None)
        session, seen = await self._sessions.enter(headers.get(b"cookie"), headers.get(b"authorization"), wants)
        user = session.user
        await self._chats.must_exist(user, key, seen)
        must_be_json(headers.get(b"content-type"), call.body)
        if message is None:
            message = fields(NewMessage, call.body)  # finds the same fault, and has the words for it
        if idempotency_key is None:
            return await self._chats.post(user, key, message.body, seen=seen, trace=call.trace)
        return await self._chats.post(user, key, message.body, _key(idempotency_key), trace=call.trace)

    @staticmethod
    def posted(outcome: Outcome) -> Reply:
        """The answer to a post whose ticket was resolved with ``outcome``."""
        if isinstance(outcome, ChatError):
            return refusal(outcome)
        return Reply(200, b'{"messageNumber":%d}' % cast(int, outcome))

    async def list_messages(self, call: Call) -> Reply:
        headers = call.headers
        key = ChatKey(call.token, call.number)
        wants = Wants(key, newest=0 if call.query else 10)
        session, seen = await self._sessions.enter(headers.get(b"cookie"), headers.get(b"authorization"), wants)
        user = session.user
        if not call.query:
            page = await self._chats.messages(user, key, limit=10, seen=seen)
            return Reply(200, page.body, headers=_links(key, page, 10))
        await self._chats.must_exist(user, key, seen)
        paging = query(MessagePaging, call.query)
        if sum(given is not None for given in (paging.page, paging.before, paging.after)) > 1:
            raise Invalid(["page, before and after exclude each other: give one of them"])
        page = await self._chats.messages(
            user,
            key,
            limit=paging.limit,
            offset=((paging.page or 1) - 1) * paging.limit,
            before=paging.before,
            after=paging.after,
            seen=seen,
        )
        return Reply(200, page.body, headers=_links(key, page, paging.limit))

    async def list_chats(self, call: Call) -> Reply:
        headers = call.headers
        wants = Wants(ChatKey(call.token, 0))
        session, seen = await self._sessions.enter(headers.get(b"cookie"), headers.get(b"authorization"), wants)
        user = session.user
        if not call.query:
            return Reply(200, await self._chats.list(user, call.token, offset=0, limit=10, seen=seen))
        paging = query(Paging, call.query)
        page = await self._chats.list(user, call.token, offset=paging.offset, limit=paging.limit, seen=seen)
        return Reply(200, page)


def _key(value: bytes) -> str:
    """The Idempotency-Key as text.

    Raises:
        Invalid: empty, too long, or not visible ASCII.
    """
    text = value.decode("latin-1").strip()
    if not (0 < len(text) <= _LONGEST_KEY and text.isascii() and text.isprintable()):
        raise Invalid([f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters"])
    return text


def _links(key: ChatKey, page: Page, limit: int) -> bytes:
    """The Link header (RFC 8288): next leads to older messages, prev to newer ones."""
    if page.oldest is None:
        return b""
    base = f"</api/v1/applications/{key.token}/chats/{key.number}/messages?limit={limit}&"
    links = f'link: {base}after={page.newest}>; rel="prev"'
    if page.more:
        links += f', {base}before={page.oldest}>; rel="next"'
    return links.encode() + b"\r\n"
