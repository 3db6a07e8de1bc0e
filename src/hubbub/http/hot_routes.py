"""The three most frequent routes, without a framework: post a message, list messages, list chats."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar, cast

import msgspec

from hubbub.chat.applications import Applications
from hubbub.chat.chats import Chats
from hubbub.chat.commands import Outcome
from hubbub.chat.encoding import ChatItem, MessageItem
from hubbub.chat.errors import ChatError, Invalid
from hubbub.chat.large_pages import FEW
from hubbub.chat.model import ChatKey, Page
from hubbub.chat.ports import AtOnce, Wants
from hubbub.chat.ticket import Ticket
from hubbub.http.fields import fields, query
from hubbub.http.media import is_json, must_be_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.problems import refusal
from hubbub.http.reply import Reply, lagging
from hubbub.http.routing import route
from hubbub.http.schemas import MessageNumber, MessagePaging, NewMessage, Paging
from hubbub.http.sessions import Session, Sessions

K = TypeVar("K")
V = TypeVar("V")

_TARGET = re.compile(
    rb"/api/v1/applications/(?P<token>[A-Za-z0-9_-]{1,64})/chats"
    rb"(?:/(?P<number>[1-9][0-9]{0,14})/messages)?(?:\?(?P<query>[^#]*))?"
)
_REMEMBERED = 20_000
_LONGEST_TARGET = 512
_LONGEST_KEY = 255
_LISTED = 10  # items on a page, unless another limit is asked for


class Call:
    """One request to a hot route. ``headers`` has lower-case names; the chat's number is 0 where the path has none."""

    __slots__ = ("body", "chat", "headers", "query", "trace")

    def __init__(self, chat: ChatKey, query: bytes, headers: dict[bytes, bytes], body: bytes, trace: str = "") -> None:
        self.chat = chat
        self.query = query
        self.headers = headers
        self.body = body
        self.trace = trace


Answer: TypeAlias = Reply | Ticket
Handler: TypeAlias = Callable[[Call], Answer | Coroutine[Any, Any, Answer]]
Match: TypeAlias = tuple[Handler, ChatKey, bytes, str]  # the chat and the query of a path, and the route's name


class HotRoutes:
    """A handler answers with a Reply, or with the Ticket of a message on its way to disk, see ``posted``: ``at_once``
    if that can, else by a coroutine, in which the request begins anew. It raises what it refuses.
    """

    def __init__(
        self, sessions: Sessions, applications: Applications, chats: Chats, at_once: AtOnce | None = None
    ) -> None:
        self._at_once = at_once
        self._sessions = sessions
        self._applications = applications
        self._chats = chats
        self._decode_message = msgspec.json.Decoder(NewMessage).decode
        self._remembered: dict[tuple[bytes, bytes], Match | None] = {}
        self._limits: dict[bytes, int | None] = {}

    def match(self, method: bytes, target: bytes) -> Match | None:
        """The handler for a request line and what its path says; None when the route is not a hot one."""
        line = (method, target)
        try:
            return self._remembered[line]
        except KeyError:
            return _remember(self._remembered, line, self._match(method, target), len(target))

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
        return handler, ChatKey(found["token"].decode(), int(found["number"] or 0)), found["query"] or b"", name

    @route(
        "POST",
        "/applications/{token}/chats/{number}/messages",
        request=NewMessage,
        response=MessageNumber,
        idempotent=True,
    )
    def post_message(self, call: Call) -> Ticket | Coroutine[Any, Any, Ticket]:
        """Send a message; durable once answered."""
        headers = call.headers
        if b"origin" in headers or b"sec-fetch-site" in headers:
            must_be_own_page(headers)
        message: NewMessage | None
        try:
            message = self._decode_message(call.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = None  # _post_message finds the same fault, and has the words for it
        # A number is taken only for what nothing will refuse any more.
        plain = message is not None and b"idempotency-key" not in headers and is_json(headers.get(b"content-type"))
        if plain and message is not None and self._at_once is not None:
            session = self._remembered_session(headers)
            if session is not None:
                posted = self._at_once.post(session.user, session.mark, call.chat, message.body, call.trace)
                if posted is not None:
                    return posted
        return self._post_message(call, message, plain=plain)

    async def _post_message(self, call: Call, message: NewMessage | None, *, plain: bool) -> Ticket:
        """``plain``: nothing will refuse the message itself."""
        headers = call.headers
        key = call.chat
        idempotency_key = headers.get(b"idempotency-key")
        wants = Wants(key, number=len(message.body) if plain and message is not None else 0)
        caller = await self._sessions.enter(headers.get(b"cookie"), headers.get(b"authorization"), wants, call.trace)
        chat = await self._chats.enter(caller, key)
        must_be_json(headers.get(b"content-type"), call.body)
        if message is None:
            message = fields(NewMessage, call.body)  # finds the same fault, and has the words for it
        if idempotency_key is None:
            return await chat.post(message.body)
        return await chat.post(message.body, _key(idempotency_key))

    @staticmethod
    def posted(outcome: Outcome) -> Reply:
        """The answer to a post whose ticket was resolved with ``outcome``."""
        if isinstance(outcome, ChatError):
            return refusal(outcome)
        return Reply(200, b'{"messageNumber":%d}' % cast(int, outcome))

    @route(
        "GET",
        "/applications/{token}/chats/{number}/messages",
        query=MessagePaging,
        response=list[MessageItem],
        lags=True,
    )
    def list_messages(self, call: Call) -> Reply | Coroutine[Any, Any, Reply]:
        """Messages, newest first, by page or before/after a number."""
        limit = self._newest(call.query) if call.query else _LISTED
        if limit is not None and self._at_once is not None:
            session = self._remembered_session(call.headers)
            if session is not None:
                page = self._at_once.newest(session.user, session.mark, call.chat, limit)
                if page is not None:
                    return Reply(200, page.body, headers=_headers(call.chat, page, limit))
        return self._list_messages(call)

    async def _list_messages(self, call: Call) -> Reply:
        headers = call.headers
        key = call.chat
        wants = Wants(key, newest=0 if call.query else _LISTED)
        caller = await self._sessions.enter(headers.get(b"cookie"), headers.get(b"authorization"), wants, call.trace)
        chat = await self._chats.enter(caller, key)
        if not call.query:
            page = await chat.newest(_LISTED)
            return Reply(200, page.body, headers=_headers(key, page, _LISTED))
        paging = query(MessagePaging, call.query)
        if sum(given is not None for given in (paging.page, paging.before, paging.after)) > 1:
            raise Invalid(["page, before and after exclude each other: give one of them"])
        page = await chat.messages(
            limit=paging.limit,
            offset=((paging.page or 1) - 1) * paging.limit,
            before=paging.before,
            after=paging.after,
        )
        return Reply(200, page.body, headers=_headers(key, page, paging.limit))

    @route("GET", "/applications/{token}/chats", query=Paging, response=list[ChatItem])
    def list_chats(self, call: Call) -> Reply | Coroutine[Any, Any, Reply]:
        """The application's chats, newest first."""
        limit = self._newest(call.query) if call.query else _LISTED
        if limit is not None and self._at_once is not None:
            session = self._remembered_session(call.headers)
            if session is not None:
                chats = self._at_once.chats(session.user, session.mark, call.chat.token, limit)
                if chats is not None:
                    return Reply(200, chats)
        return self._list_chats(call)

    async def _list_chats(self, call: Call) -> Reply:
        headers = call.headers
        wants = Wants(call.chat)
        caller = await self._sessions.enter(headers.get(b"cookie"), headers.get(b"authorization"), wants, call.trace)
        member = await self._applications.enter(caller, call.chat.token)
        if not call.query:
            return Reply(200, await member.chats(limit=_LISTED))
        paging = query(Paging, call.query)
        return Reply(200, await member.chats(offset=paging.offset, limit=paging.limit))

    def _newest(self, text: bytes) -> int | None:
        """The limit of a query that asks for nothing but the newest, and for few of them; None for any other query."""
        try:
            return self._limits[text]
        except KeyError:
            return _remember(self._limits, text, _limit_of(text), len(text))

    def _remembered_session(self, headers: dict[bytes, bytes]) -> Session | None:
        return self._sessions.known(headers.get(b"authorization") or headers.get(b"cookie"))


def _remember(known: dict[K, V], key: K, value: V, length: int) -> V:
    """Remember the value, unless the text that it was found for is too long; forget all others when they are many."""
    if length <= _LONGEST_TARGET:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = value
    return value


def _limit_of(text: bytes) -> int | None:
    try:
        paging = query(MessagePaging, text)
    except Invalid:  # who answers by a coroutine finds the same fault, and has the words for it
        return None
    newest = paging.page in (None, 1) and paging.before is None and paging.after is None
    return paging.limit if newest and paging.limit <= FEW else None


def _key(value: bytes) -> str:
    """The Idempotency-Key as text.

    Raises:
        Invalid: empty, too long, or not visible ASCII.
    """
    text = value.decode("latin-1").strip()
    if not (0 < len(text) <= _LONGEST_KEY and text.isascii() and text.isprintable()):
        raise Invalid([f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters"])
    return text


def _headers(key: ChatKey, page: Page, limit: int) -> bytes:
    """The Link header (RFC 8288): next leads to older messages, prev to newer ones; and whether the page may lag."""
    lag = lagging(page.lag)
    if page.oldest is None:
        return lag
    base = f"</api/v1/applications/{key.token}/chats/{key.number}/messages?limit={limit}&"
    links = f'link: {base}after={page.newest}>; rel="prev"'
    if page.more:
        links += f', {base}before={page.oldest}>; rel="next"'
    return links.encode() + b"\r\n" + lag
