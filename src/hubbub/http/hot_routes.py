"""The three most frequent routes, without a framework: post a message, list messages, list chats."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, cast

import msgspec

from hubbub.chat.applications import Applications
from hubbub.chat.caller import Caller
from hubbub.chat.chats import Chats
from hubbub.chat.commands import Outcome
from hubbub.chat.encoding import ChatItem, MessageItem
from hubbub.chat.errors import ChatError, Invalid
from hubbub.chat.model import ChatKey, Page
from hubbub.chat.ports import Entry, Wants
from hubbub.chat.ticket import Ticket
from hubbub.http.fields import fields, query
from hubbub.http.media import is_json, must_be_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.problems import refusal
from hubbub.http.reply import Reply, lagging
from hubbub.http.routing import route
from hubbub.http.schemas import MessageNumber, MessagePaging, NewMessage, Paging
from hubbub.http.sessions import Sessions

_TARGET = re.compile(
    rb"/api/v1/applications/(?P<token>[A-Za-z0-9_-]{1,64})/chats"
    rb"(?:/(?P<number>[1-9][0-9]{0,14})/messages)?(?:\?(?P<query>[^#]*))?"
)
_REMEMBERED = 20_000
_LONGEST_TARGET = 512
_LONGEST_KEY = 255
LISTED = 10  # items on a page, unless another limit is asked for


class Call:
    """One request to a hot route. ``headers`` has lower-case names; the chat's number is 0 where the path has none.
    ``entered`` is what the gate has said of it, if it was asked before."""

    __slots__ = ("body", "chat", "entered", "headers", "query", "trace")

    def __init__(
        self,
        chat: ChatKey,
        query: bytes,
        headers: dict[bytes, bytes],
        body: bytes,
        trace: str = "",
        entered: Entry | None = None,
    ) -> None:
        self.chat = chat
        self.query = query
        self.headers = headers
        self.body = body
        self.trace = trace
        self.entered = entered


Answer: TypeAlias = Reply | Ticket
Handler: TypeAlias = Callable[[Call], Coroutine[Any, Any, Answer]]
Match: TypeAlias = tuple[Handler, ChatKey, bytes, str]  # the chat and the query of a path, and the route's name
_decode = msgspec.json.Decoder(NewMessage).decode


class HotRoutes:
    """A handler answers with a Reply, or with the Ticket of a message on its way to disk, see ``posted``. It raises
    what it refuses.
    """

    def __init__(self, sessions: Sessions, applications: Applications, chats: Chats) -> None:
        self._sessions = sessions
        self._applications = applications
        self._chats = chats
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
        return handler, ChatKey(found["token"].decode(), int(found["number"] or 0)), found["query"] or b"", name

    async def _enter(self, call: Call, wants: Wants) -> Caller:
        cookie, authorization = call.headers.get(b"cookie"), call.headers.get(b"authorization")
        return await self._sessions.enter(cookie, authorization, wants, call.trace, call.entered)

    @route(
        "POST",
        "/applications/{token}/chats/{number}/messages",
        request=NewMessage,
        response=MessageNumber,
        idempotent=True,
    )
    async def post_message(self, call: Call) -> Ticket:
        """Send a message; durable once answered."""
        headers = call.headers
        if b"origin" in headers or b"sec-fetch-site" in headers:
            must_be_own_page(headers)
        message = message_of(call.body)
        idempotency_key = headers.get(b"idempotency-key")
        # A number is taken only for what nothing will refuse any more.
        plain = message is not None and idempotency_key is None and is_json(headers.get(b"content-type"))
        wants = Wants(call.chat, number=len(message.body) if plain and message is not None else 0)
        caller = await self._enter(call, wants)
        chat = await self._chats.enter(caller, call.chat)
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
    async def list_messages(self, call: Call) -> Reply:
        """Messages, newest first, by page or before/after a number."""
        key = call.chat
        wants = Wants(key, newest=0 if call.query else LISTED)
        caller = await self._enter(call, wants)
        chat = await self._chats.enter(caller, key)
        if not call.query:
            page = await chat.newest(LISTED)
            return page_reply(page_url(key, LISTED), page)
        paging = query(MessagePaging, call.query)
        if sum(given is not None for given in (paging.page, paging.before, paging.after)) > 1:
            raise Invalid(["page, before and after exclude each other: give one of them"])
        page = await chat.messages(
            limit=paging.limit,
            offset=((paging.page or 1) - 1) * paging.limit,
            before=paging.before,
            after=paging.after,
        )
        return page_reply(page_url(key, paging.limit), page)

    @route("GET", "/applications/{token}/chats", query=Paging, response=list[ChatItem])
    async def list_chats(self, call: Call) -> Reply:
        """The application's chats, newest first."""
        wants = Wants(call.chat)
        caller = await self._enter(call, wants)
        member = await self._applications.enter(caller, call.chat.token)
        if not call.query:
            return Reply(200, await member.chats(limit=LISTED))
        paging = query(Paging, call.query)
        return Reply(200, await member.chats(offset=paging.offset, limit=paging.limit))


def message_of(body: bytes) -> NewMessage | None:
    """The message of a post; None if the body is not as it should be."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _key(value: bytes) -> str:
    """The Idempotency-Key as text.

    Raises:
        Invalid: empty, too long, or not visible ASCII.
    """
    text = value.decode("latin-1").strip()
    if not (0 < len(text) <= _LONGEST_KEY and text.isascii() and text.isprintable()):
        raise Invalid([f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters"])
    return text


def page_url(key: ChatKey, limit: int) -> bytes:
    """The URL of a page of the chat's messages, but for the number where it begins or ends."""
    return b"/api/v1/applications/%b/chats/%d/messages?limit=%d&" % (key.token.encode(), key.number, limit)


def page_reply(url: bytes, page: Page) -> Reply:
    """The answer that has the page. Its Link header (RFC 8288) says next for older messages and prev for newer ones;
    ``url`` is the page's, see page_url.
    """
    if page.oldest is None or page.newest is None:
        links = b""
    elif page.more:
        links = b'link: <%bafter=%d>; rel="prev", <%bbefore=%d>; rel="next"\r\n' % (url, page.newest, url, page.oldest)
    else:
        links = b'link: <%bafter=%d>; rel="prev"\r\n' % (url, page.newest)
    return Reply(200, page.body, headers=links + lagging(page.lag))
