"""The most frequent requests, answered from memory without waiting: one call for each step, and no coroutine.

A request that has no shortcut, or whose shortcut finds too little in memory, is handled by its hot route, from the
beginning. The answers are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from hubbub.chat.errors import Forbidden, Invalid
from hubbub.chat.large_pages import FEW
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import AtOnce
from hubbub.chat.ticket import Ticket
from hubbub.http.fields import query
from hubbub.http.hot_routes import LISTED, Match, message_of, page_reply, page_url
from hubbub.http.media import is_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.reply import Reply
from hubbub.http.schemas import MessagePaging
from hubbub.http.sessions import Sessions

# Answers a request with this body and trace. None says only that memory is not enough, and has counted nothing. It
# raises what it refuses.
Shortcut: TypeAlias = Callable[[bytes, str], Reply | Ticket | None]


class Shortcuts:
    """Makes shortcuts. One depends on the head of its requests alone, so it may be kept with that."""

    def __init__(self, sessions: Sessions, at_once: AtOnce) -> None:
        self._sessions = sessions
        self._at_once = at_once

    def of(self, match: Match, headers: dict[bytes, bytes]) -> Shortcut | None:
        """The shortcut of a hot request with these headers; None if it has none."""
        _, chat, asked, route = match
        credentials = headers.get(b"authorization") or headers.get(b"cookie")
        if credentials is None:
            return None
        if route == "postMessage":
            return partial(self._post, credentials, chat) if _is_plain_post(headers) else None
        limit = _limit_of(asked) if asked else LISTED
        if limit is None:
            return None
        if route == "listMessages":
            return partial(self._list_messages, credentials, chat, limit, page_url(chat, limit))
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
        if kept is None:
            return None
        if kept.answer is None:
            kept.answer = page_reply(url, kept.page)
        answer: Reply = kept.answer
        return answer

    def _list_chats(self, credentials: bytes, token: str, limit: int, _body: bytes, _trace: str) -> Reply | None:
        session = self._sessions.known(credentials)
        if session is None:
            return None
        chats = self._at_once.chats(session.user, session.mark, token, limit)
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
