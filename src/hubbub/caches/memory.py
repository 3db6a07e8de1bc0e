"""The cache of the embedded mode: plain objects on the event loop, no locks because no second thread touches them.

The queue applies a chat's commands in order and tells of each outcome in that order; a read of the store may already
see commands whose outcome has not been told yet. Everything here is therefore written so that hearing of a command
that was already read changes nothing:

- a post counts, and is listed, only when its number is above the highest one that was there when the count, or the
  list, was read;
- an edit or a delete drops what is held of the chat's messages, and a delete its count, to be read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from hubbub.chat.commands import (
    AddChat,
    Command,
    DeleteMessage,
    EditMessage,
    Outcome,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameChat,
)
from hubbub.chat.encoding import encode_chat, encode_message
from hubbub.chat.errors import NotFound
from hubbub.chat.feed import Event, Feed
from hubbub.chat.model import Chat, ChatKey, Message, Page, Role
from hubbub.chat.ports import Store

_KEPT = 101  # one above the largest page, to know whether older messages follow
_OVERHEAD = 150  # bytes of bookkeeping for each message held


class _Application:
    """``newest`` holds the newest chats, newest first, up to 100; None until asked for."""

    __slots__ = ("newest", "pages", "roles")

    def __init__(self) -> None:
        self.roles: dict[int, Role] = {}
        self.newest: list[_Chat] | None = None
        self.pages: dict[int, bytes] = {}


class _Chat:
    """A chat's figures, and its newest messages where somebody reads them.

    Invariants: ``next`` is above every number ever given here. ``count`` is None, or takes in exactly the stored
    messages up to ``counted_to``. ``messages`` is None, or has exactly the stored messages up to ``listed_to``,
    ascending, from some number on; from the chat's first when ``whole``.
    """

    __slots__ = (
        "application",
        "count",
        "counted_to",
        "in_flight",
        "key",
        "listed_to",
        "messages",
        "next",
        "pages",
        "title",
        "whole",
    )

    def __init__(self, application: _Application, key: ChatKey, chat: Chat) -> None:
        self.application = application
        self.key = key
        self.title = chat.title
        self.count: int | None = chat.messages_count
        self.counted_to = chat.last_number
        self.listed_to = 0
        self.next = chat.last_number + 1
        self.in_flight = 0
        self.messages: list[tuple[int, bytes]] | None = None
        self.whole = False
        self.pages: dict[int, Page] = {}


class MemoryCache:
    """See chat.ports.View and chat.intake.HotData.

    Bounded by ``max_bytes`` of messages and ``max_chats`` chats, least recently used out. ``hits`` and ``misses`` count
    the lists of newest messages that were there, and those that the store was asked for.
    """

    def __init__(self, store: Store, feed: Feed, *, max_bytes: int = 48 * 1024 * 1024, max_chats: int = 50_000) -> None:
        self._feed = feed
        self._store = store
        self._max_bytes = max_bytes
        self._max_chats = max_chats
        self._applications: dict[str, _Application] = {}
        self._chats: OrderedDict[ChatKey, _Chat] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    # Reading ---------------------------------------------------------------------------------------------------------

    async def role(self, token: str, user_id: int, seen: object = None) -> Role | None:
        application = self._applications.get(token)
        if application is not None:
            role = application.roles.get(user_id)
            if role is not None:
                return role
        role = await self._store.role(token, user_id)
        if role is not None:  # strangers are not remembered: there is no end to them
            self._application(token).roles[user_id] = role
        return role

    def _application(self, token: str) -> _Application:
        application = self._applications.get(token)
        if application is None:
            if len(self._applications) >= self._max_chats:
                self._forget_applications()
            application = self._applications[token] = _Application()
        return application

    def _forget_applications(self) -> None:
        """Keep only what commands in flight need; the rest comes back from the store when asked for."""
        self._chats = OrderedDict((key, chat) for key, chat in self._chats.items() if chat.in_flight)
        self._bytes = sum(_weight(chat) for chat in self._chats.values())
        self._applications = {key.token: chat.application for key, chat in self._chats.items()}
        for application in self._applications.values():
            application.newest = None
            application.pages.clear()

    async def exists(self, key: ChatKey) -> bool:
        return key in self._chats or await self._load(key) is not None

    async def _chat(self, key: ChatKey) -> _Chat:
        chat = self._chats.get(key) or await self._load(key)
        if chat is None:
            raise NotFound("There is no such chat.")
        return chat

    async def _load(self, key: ChatKey) -> _Chat | None:
        stored = await self._store.chat(key)
        return None if stored is None else self._hold(key, stored)

    def _hold(self, key: ChatKey, stored: Chat) -> _Chat:
        chat = self._chats.get(key)  # whoever was first while the store was asked knows of the numbers given since
        if chat is None:
            chat = self._chats[key] = _Chat(self._application(key.token), key, stored)
            self._shrink()
        return chat

    async def message(self, key: ChatKey, number: int) -> Message | None:
        return await self._store.message(key, number)

    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> list[Message]:
        return await self._store.messages(key, limit=limit, before=before, after=after, offset=offset)

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> list[Message]:
        return await self._store.numbered(key, numbers)

    async def next_number(self, key: ChatKey) -> int:
        """A message number above all that were ever given in this chat, and given to nobody else.

        ``settled`` must follow for the command that takes it.
        """
        chat = await self._chat(key)
        number = chat.next
        chat.next = number + 1
        chat.in_flight += 1
        return number

    async def newest(self, key: ChatKey, limit: int, seen: object = None) -> Page:
        chat = await self._chat(key)
        page = chat.pages.get(limit)
        self.hits += 1
        if page is None:
            messages = chat.messages
            if messages is None or (len(messages) <= limit and not chat.whole):
                self.hits -= 1
                self.misses += 1
                messages = await self._read_newest(chat, limit)
            shown = messages[: -limit - 1 : -1]
            page = chat.pages[limit] = Page(
                body=b"[" + b",".join([item for _, item in shown]) + b"]",
                oldest=shown[-1][0] if shown else None,
                newest=shown[0][0] if shown else None,
                more=len(messages) > limit,
            )
        self._chats.move_to_end(key)
        return page

    async def _read_newest(self, chat: _Chat, limit: int) -> list[tuple[int, bytes]]:
        stored = await self._store.messages(chat.key, limit=limit + 1)
        self._bytes -= _weight(chat)
        messages = [(message.number, encode_message(message)) for message in reversed(stored)]
        chat.messages = messages
        chat.listed_to = messages[-1][0] if messages else 0
        chat.whole = len(stored) <= limit
        self._bytes += _weight(chat)
        self._shrink()
        return messages

    async def chats(self, token: str, limit: int, seen: object = None) -> bytes:
        application = self._application(token)
        page = application.pages.get(limit)
        if page is None:
            if application.newest is None:
                stored = await self._store.chats(token, offset=0, limit=100)
                application.newest = [self._hold(ChatKey(token, chat.number), chat) for chat in stored]
            shown = application.newest[:limit]
            for chat in shown:
                if chat.count is None:
                    await self._recount(chat)
            items = [encode_chat(chat.key.number, chat.title, chat.count or 0) for chat in shown]
            page = application.pages[limit] = b"[" + b",".join(items) + b"]"
        return page

    async def _recount(self, chat: _Chat) -> None:
        stored = await self._store.chat(chat.key)
        if stored is not None:
            chat.count = stored.messages_count
            chat.counted_to = stored.last_number

    # Writing ---------------------------------------------------------------------------------------------------------

    def settled(self, command: Command, outcome: Outcome) -> None:
        """The command's outcome is known. Must be called before anyone is told of it."""
        if type(command) is PostMessage:
            self._posted(command, outcome)
        elif isinstance(outcome, Exception):
            return
        elif isinstance(command, EditMessage):
            chat = self._chats.get(command.chat)
            if chat is not None:
                self._drop_messages(chat)
            self._feed.publish(command.chat, Event(command.number, None))
        elif isinstance(command, DeleteMessage):
            self._deleted(command)
            self._feed.publish(command.chat, Event(command.number, None))
        elif isinstance(command, PutMember):
            self._application(command.token).roles[command.user_id] = command.role
        elif isinstance(command, RemoveMember):
            self._application(command.token).roles.pop(command.user_id, None)
        elif isinstance(command, AddChat | RenameChat):
            self._chat_changed(command)

    def _posted(self, command: PostMessage, outcome: Outcome) -> None:
        chat = self._chats.get(command.chat)
        if chat is None:
            return
        chat.in_flight -= 1
        number = command.number
        if outcome != number:  # refused, or a retry that found its first try stored
            return
        item = None
        if self._feed.heard(command.chat):
            item = _encoded(command)
            self._feed.publish(command.chat, Event(number, item))
        if number > chat.counted_to and chat.count is not None:
            chat.count += 1
            chat.counted_to = number
            chat.application.pages.clear()
        messages = chat.messages
        if messages is not None and number > chat.listed_to:
            chat.listed_to = number
            chat.pages.clear()
            item = item or _encoded(command)
            messages.append((number, item))
            self._bytes += len(item) + _OVERHEAD
            if len(messages) >= 2 * _KEPT:
                self._bytes -= sum(len(item) + _OVERHEAD for _, item in messages[:-_KEPT])
                del messages[:-_KEPT]
                chat.whole = False
            if self._bytes > self._max_bytes:
                self._shrink()

    def _deleted(self, command: DeleteMessage) -> None:
        chat = self._chats.get(command.chat)
        if chat is None:
            return
        chat.count = None
        self._drop_messages(chat)
        chat.application.pages.clear()

    def _chat_changed(self, command: AddChat | RenameChat) -> None:
        if isinstance(command, RenameChat):
            chat = self._chats.get(command.chat)
            if chat is not None:
                chat.title = command.title
            application = self._applications.get(command.chat.token)
        else:
            application = self._applications.get(command.token)
        if application is not None:
            application.newest = None
            application.pages.clear()

    def _drop_messages(self, chat: _Chat) -> None:
        self._bytes -= _weight(chat)
        chat.messages = None
        chat.whole = False
        chat.pages.clear()

    def _forget(self, chat: _Chat) -> None:
        self._drop_messages(chat)
        del self._chats[chat.key]

    def _shrink(self) -> None:
        """Let go of what was read longest ago until the bounds hold; chats in flight keep their numbers."""
        if self._bytes > self._max_bytes:
            for chat in list(self._chats.values()):
                self._drop_messages(chat)
                if self._bytes <= self._max_bytes // 2:
                    break
        if len(self._chats) > self._max_chats:
            for chat in list(self._chats.values())[: self._max_chats // 10]:
                if not chat.in_flight:
                    chat.application.newest = None
                    chat.application.pages.clear()
                    self._forget(chat)


def _encoded(post: PostMessage) -> bytes:
    return encode_message(Message(post.number, post.sender_id, post.sender_name, post.body, post.created_at))


def _weight(chat: _Chat) -> int:
    return sum(len(item) + _OVERHEAD for _, item in chat.messages or ())
