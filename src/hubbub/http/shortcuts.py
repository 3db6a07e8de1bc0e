"""The most frequent requests, answered by plain calls, one for each step, without a coroutine: from memory at once, or
from what the gate's trip to another server brings.

A request that has no shortcut, or whose shortcut finds too little, is handled by its hot route: from the beginning, or
from what the gate has said, as that has counted the request. The answers are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from hubbub.chat.errors import Forbidden, Invalid
from hubbub.chat.large_pages import FEW
from hubbub.chat.model import ChatKey, KeptPage, User
from hubbub.chat.ports import AtOnce, Entry, OneTrip, Wants
from hubbub.chat.ticket import Ticket
from hubbub.http.fields import query
from hubbub.http.hot_routes import LISTED, Answer, Match, message_of, page_reply, page_url
from hubbub.http.media import is_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.reply import Reply
from hubbub.http.schemas import MessagePaging
from hubbub.http.sessions import Session, Sessions, credentials_of

# What comes of a Later: the answer, the refusal, or, if neither can be told, the entry with which the route goes on.
Came: TypeAlias = Answer | Exception | Entry
# Makes the answer for a user of what the gate has brought; None if that is not enough. It raises what it refuses.
_Made: TypeAlias = Callable[[User, object], Answer | None]


class Later:
    """An answer that comes when the gate has said whether the request is let in. ``then`` is called with it, once; who
    gets the Later sets it at once. ``session`` must live by the gate's mark, and ``made`` makes the answer.
    """

    __slots__ = ("_made", "_session", "then")

    def __init__(self, session: Session, made: _Made) -> None:
        self._session = session
        self._made = made
        self.then: Callable[[Came], None]

    def came(self, entered: Entry | Exception) -> None:
        """The gate has said it."""
        came: Came = entered
        if type(entered) is Entry and self._session.lives(entered.mark):
            try:
                came = self._made(self._session.user, entered.brought) or entered
            except Exception as error:  # noqa: BLE001 - every failure becomes a problem, and is logged there
                self.then(error)
                return
        self.then(came)


# Answers a request with this body and trace, now or later. None says only that memory is not enough, and has counted
# nothing. It raises what it refuses.
Shortcut: TypeAlias = Callable[[bytes, str], Answer | Later | None]


class Makes(Protocol):
    """Makes a shortcut for each kind of request, see ``shortcut_of``; None if there is none for this one."""

    def post(self, credentials: bytes, chat: ChatKey) -> Shortcut | None: ...
    def list_messages(self, credentials: bytes, chat: ChatKey, limit: int) -> Shortcut | None: ...
    def list_chats(self, credentials: bytes, chat: ChatKey, limit: int) -> Shortcut | None: ...


def shortcut_of(makes: Makes, match: Match, headers: dict[bytes, bytes]) -> Shortcut | None:
    """The shortcut of a hot request with these headers; None if it has none. It depends on the head of its requests
    alone, so it may be kept with that."""
    _, chat, asked, route = match
    credentials = credentials_of(headers.get(b"cookie"), headers.get(b"authorization"))
    if credentials is None:
        return None
    if route == "postMessage":
        return makes.post(credentials, chat) if _is_plain_post(headers) else None
    limit = _limit_of(asked) if asked else LISTED
    if limit is None:
        return None
    if route == "listMessages":
        return makes.list_messages(credentials, chat, limit)
    return makes.list_chats(credentials, chat, limit)


def kept_reply(kept: KeptPage, url: bytes) -> Reply:
    """The answer that has the page; it is kept with that."""
    if kept.answer is None:
        kept.answer = page_reply(url, kept.page)
    answer: Reply = kept.answer
    return answer


class AtOnceShortcuts:
    """Shortcuts that answer at once."""

    def __init__(self, sessions: Sessions, at_once: AtOnce) -> None:
        self._sessions = sessions
        self._at_once = at_once

    def post(self, credentials: bytes, chat: ChatKey) -> Shortcut:
        return partial(self._post, credentials, chat)

    def list_messages(self, credentials: bytes, chat: ChatKey, limit: int) -> Shortcut:
        return partial(self._list_messages, credentials, chat, limit, page_url(chat, limit))

    def list_chats(self, credentials: bytes, chat: ChatKey, limit: int) -> Shortcut:
        return partial(self._list_chats, credentials, chat.token, limit)

    def _post(self, credentials: bytes, chat: ChatKey, body: bytes, trace: str) -> Ticket | None:
        message = message_of(body)
        session = self._sessions.known(credentials)
        if message is None or session is None:
            return None
        return self._at_once.post(session.user, session.mark, chat, message.body, trace)

    def _list_messages(
        self, credentials: bytes, chat: ChatKey, limit: int, url: bytes, _body: bytes, _trace: str
    ) -> Reply | None:
        session = self._sessions.known(credentials)
        if session is None:
            return None
        kept = self._at_once.newest(session.user, session.mark, chat, limit)
        return None if kept is None else kept_reply(kept, url)

    def _list_chats(self, credentials: bytes, token: str, limit: int, _body: bytes, _trace: str) -> Reply | None:
        session = self._sessions.known(credentials)
        if session is None:
            return None
        chats = self._at_once.chats(session.user, session.mark, token, limit)
        return None if chats is None else Reply(200, chats)


class TripShortcuts:
    """Shortcuts that answer when the gate's trip is back."""

    def __init__(self, sessions: Sessions, trips: OneTrip) -> None:
        self._sessions = sessions
        self._trips = trips

    def post(self, credentials: bytes, chat: ChatKey) -> Shortcut:
        return partial(self._post, credentials, chat)

    def list_messages(self, credentials: bytes, chat: ChatKey, limit: int) -> Shortcut | None:
        if limit != LISTED:  # a trip brings no others, as hardly anybody asks for them
            return None
        made = partial(self._messages, chat, page_url(chat, limit))
        return partial(self._ask, credentials, Wants(chat, newest=limit), made)

    def list_chats(self, credentials: bytes, chat: ChatKey, limit: int) -> Shortcut:
        return partial(self._ask, credentials, Wants(chat), partial(self._chats, chat.token, limit))

    def _post(self, credentials: bytes, chat: ChatKey, body: bytes, trace: str) -> Later | None:
        message = message_of(body)
        if message is None:
            return None
        text = message.body
        return self._ask(credentials, Wants(chat, number=len(text)), partial(self._posted, chat, text, trace))

    def _ask(self, credentials: bytes, wants: Wants, made: _Made, _body: bytes = b"", _trace: str = "") -> Later | None:
        session = self._sessions.known(credentials)
        if session is None:
            return None
        later = Later(session, made)
        self._trips.ask(session.user.id, session.mark, wants, later.came)
        return later

    def _posted(self, chat: ChatKey, text: str, trace: str, user: User, brought: object) -> Ticket | None:
        return self._trips.post(user, brought, chat, text, trace)

    def _messages(self, chat: ChatKey, url: bytes, user: User, brought: object) -> Reply | None:
        kept = self._trips.newest(user, brought, chat, LISTED)
        return None if kept is None else kept_reply(kept, url)

    def _chats(self, token: str, limit: int, user: User, brought: object) -> Reply | None:
        chats = self._trips.chats(user, brought, token, limit)
        return None if chats is None else Reply(200, chats)


def _is_plain_post(headers: dict[bytes, bytes]) -> bool:
    """Whether nothing in the headers may refuse the post, or make it another one."""
    if b"idempotency-key" in headers or not is_json(headers.get(b"content-type")):
        return False
    try:
        must_be_own_page(headers)
    except Forbidden:
        return False
    return True


def _limit_of(asked: bytes) -> int | None:
    """The limit of a query that asks for nothing but the newest, and for few of them; None for any other query."""
    try:
        paging = query(MessagePaging, asked)
    except Invalid:
        return None
    newest = paging.page in (None, 1) and paging.before is None and paging.after is None
    return paging.limit if newest and paging.limit <= FEW else None
