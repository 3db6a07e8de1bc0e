"""The cache of the embedded mode: plain objects on the event loop. It needs no locks: no other thread uses them.

``settled`` reports every command of every process with its outcome, once, in the order of the commits. A read of the
store may already include commands that are not reported yet. So when all that a read included is reported, what is
cached must be the same as if those reports had not come:

- a post is counted, and added to the list, only if its number is above the highest number at the time when the count,
  or the list, was read. A chat's messages get their numbers in the order of the commits;
- an edit or a delete drops the chat's cached messages, and a delete also the chat's count, to be read again; so a post
  that was read as deleted already is listed only until its delete is reported;
- a change of a role drops the role, to be read again, and a new or renamed chat the list of chats; a renamed chat gets
  the title that is reported last;
- when a chat or an application is deleted, all that is cached of it is dropped; when a user is renamed, all lists of
  messages are;
- a post may have been queued before its sender was renamed, and then has the old name: it is listed under the last
  reported name, which is the one that the store has after the same commands.

Nothing is reported between a read and keeping what was read: the reads that are kept are short, and such reads of the
embedded store don't wait. Only large pages are encoded in slices, with other requests in between; they are kept unless
a report has changed them meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from hubbub.chat.caller import Caller
from hubbub.chat.commands import (
    AcceptInvite,
    AddChat,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    DeleteUser,
    EditMessage,
    HandOver,
    Outcome,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameChat,
    RenameUser,
)
from hubbub.chat.encoding import Item, encode_chat, encode_item, encode_messages, page_after, page_of
from hubbub.chat.errors import NotFound
from hubbub.chat.feed import Event, Feed
from hubbub.chat.large_pages import LargePages, encode_in_slices, is_large
from hubbub.chat.model import DELETED_USER, Chat, ChatKey, KeptPage, MessagesRead, Page, Role
from hubbub.chat.ports import Store

_KEPT = 101  # one above the largest page, to know whether older messages follow
_OVERHEAD = 150  # bytes of bookkeeping for each message held
_PAGE = 900  # for the page of a chat, and its answer's fields
# How many entries one step drops, or checks for that: more than a step adds, so that the bounds hold in the end, and
# few enough that a step takes some milliseconds at most.
_LISTS_AT_ONCE = 500
_LOOKED_AT = 10
_NAMES = 10_000


class Reads(Store, Protocol):
    """See embedded.store."""

    def forget_ids(self) -> None: ...


class _Application:
    """The cached data of an application. ``newest`` has the keys of the newest chats, newest first, up to 100; None
    until they are asked for, and once a chat is dropped from the cache: so the keys are no more than the cached chats.
    ``held`` is the number of these.

    ``page`` is the encoded list that was read last, with its limit. Only one is kept, because there are a hundred
    limits.

    Invariant: all chats in ``page`` are in the cache, and are as it says. So a step that changes a chat, or drops it
    from the cache, calls ``changed``: that drops the page, and ``changes`` shows it to a page that is being made.
    """

    __slots__ = ("changes", "held", "newest", "page", "roles")

    def __init__(self) -> None:
        self.roles: dict[int, Role] = {}
        self.newest: list[ChatKey] | None = None
        self.page: tuple[int, bytes] | None = None
        self.changes = 0
        self.held = 0

    def changed(self) -> None:
        self.page = None
        self.changes += 1

    def forget_newest(self) -> None:
        self.newest = None
        self.changed()


class _Chat:
    """The cached data of a chat: its counts, and its newest messages once they are read. ``page`` is the page that was
    made last; it takes at most as much memory again as the messages, and is without the last ``unpaged`` of them.

    Invariants, once all that was read is reported: ``count`` is None, or counts exactly the stored messages up to
    ``counted_to``. ``messages`` is None, or has exactly the stored messages up to ``listed_to``, ascending, from some
    number on; if ``whole``, from the chat's first. Stored messages above these two numbers are still to be reported.
    The listed ones have the names that their senders had after the first ``renames`` renames of all users. ``changes``
    rises with every report that changes the messages, so that none is missed by a list that is being made.
    """

    __slots__ = (
        "application",
        "changes",
        "count",
        "counted_to",
        "key",
        "listed_to",
        "messages",
        "page",
        "renames",
        "title",
        "unpaged",
        "weight",
        "whole",
    )

    def __init__(self, application: _Application, key: ChatKey, chat: Chat) -> None:
        self.application = application
        self.key = key
        self.title = chat.title
        self.count: int | None = chat.messages_count
        self.counted_to = chat.last_number
        self.changes = 0
        self.listed_to = 0
        self.messages: list[Item] | None = None
        self.weight = 0  # bytes that the messages cost
        self.whole = False
        self.page: KeptPage | None = None
        self.unpaged = 0
        self.renames = 0

    def listed(self, limit: int) -> list[Item] | None:
        """The messages, if they are enough for a page of ``limit``."""
        messages = self.messages
        return None if messages is None or (len(messages) <= limit and not self.whole) else messages


class MemoryCache:
    """See chat.ports.View and embedded.intake.HotData.

    It holds at most ``max_bytes`` of messages, and as much again for the pages made of them; the messages of the chat
    that was read longest ago are dropped first. It holds at most ``max_chats`` chats; the one that was added first is
    dropped first. And it holds at most as many applications without cached chats.
    ``hits`` and ``misses`` count the lists of newest messages that were cached, and those that the store was read for.
    """

    def __init__(self, store: Reads, feed: Feed, *, max_bytes: int = 48 * 1024 * 1024, max_chats: int = 50_000) -> None:
        self._feed = feed
        self._store = store
        self._max_bytes = max_bytes
        self._max_chats = max_chats
        self._applications: OrderedDict[str, _Application] = OrderedDict()
        self._chats: OrderedDict[ChatKey, _Chat] = OrderedDict()
        self._listed: OrderedDict[ChatKey, _Chat] = OrderedDict()  # the chats whose messages are held
        self._bytes = 0
        self.large_pages = LargePages()
        self._renames = 0
        self._names: OrderedDict[int, str] = OrderedDict()  # of users who were renamed, the latest last
        self.hits = 0
        self.misses = 0

    # Reading ---------------------------------------------------------------------------------------------------------

    async def role(self, caller: Caller, token: str) -> Role | None:
        user_id = caller.user.id
        application = self._applications.get(token)
        if application is not None:
            role = application.roles.get(user_id)
            if role is not None:
                return role
        role = await self._store.role(token, user_id)
        if role is not None:  # strangers are not remembered: their number has no bound
            self._application(token).roles[user_id] = role
        return role

    def _application(self, token: str) -> _Application:
        application = self._applications.get(token)
        if application is None:
            application = self._applications[token] = _Application()
            if len(self._applications) > self._max_chats:
                self._forget_applications()
        return application

    def _forget_applications(self) -> None:
        """Drop some of the applications that were added first, except those with cached chats, which refer to them."""
        for _ in range(min(_LOOKED_AT, len(self._applications) - 1)):
            token, application = next(iter(self._applications.items()))
            if application.held:
                self._applications.move_to_end(token)
            else:
                del self._applications[token]
                if len(self._applications) <= self._max_chats:
                    return

    async def exists(self, caller: Caller, key: ChatKey) -> bool:
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
        chat = self._chats.get(key)
        if chat is None:
            application = self._application(key.token)
            chat = self._chats[key] = _Chat(application, key, stored)
            application.held += 1
            if len(self._chats) > self._max_chats:
                self._let_go(next(iter(self._chats.values())))
        return chat

    def _let_go(self, chat: _Chat) -> None:
        self._drop_messages(chat)
        del self._chats[chat.key]
        chat.application.held -= 1
        chat.application.forget_newest()

    async def message(self, key: ChatKey, number: int) -> MessagesRead:
        message = await self._store.message(key, number)
        return MessagesRead([] if message is None else [message])

    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> MessagesRead:
        return MessagesRead(await self._store.messages(key, limit=limit, before=before, after=after, offset=offset))

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> MessagesRead:
        return MessagesRead(await self._store.numbered(key, numbers))

    def holds(self, user_id: int, key: ChatKey) -> bool:
        """Whether the chat is held, and the user known as a member. No says nothing."""
        chat = self._chats.get(key)
        return chat is not None and user_id in chat.application.roles

    def newest_at_once(self, user_id: int, key: ChatKey, limit: int) -> KeptPage | None:
        """As ``newest``, for a member; None if that is not known, or the page can't be made of what is held. It is no
        hit yet: the caller counts it once nothing refuses the request any more."""
        chat = self._chats.get(key)
        if chat is None or user_id not in chat.application.roles:
            return None
        return self._held_page(chat, limit)

    def chats_at_once(self, user_id: int, token: str, limit: int) -> bytes | None:
        """As ``chats``, for a member; None if that is not known, or the list can't be made of what is held."""
        application = self._applications.get(token)
        if application is None or user_id not in application.roles:
            return None
        return self._held_list(application, limit)

    async def newest(self, caller: Caller, key: ChatKey, limit: int) -> Page:
        chat = await self._chat(key)
        kept = self._held_page(chat, limit)
        if kept is not None:
            self.hits += 1
            return kept.page
        self.misses += 1
        return self._page_of(chat, await self._read_newest(caller, chat, limit), limit).page

    def _held_page(self, chat: _Chat, limit: int) -> KeptPage | None:
        """The chat's newest messages; None if they are not held."""
        if chat.renames != self._renames:
            self._drop_messages(chat)
        kept = chat.page
        if kept is None or kept.limit != limit or chat.unpaged:
            messages = chat.listed(limit)
            if messages is None:
                return None
            kept = self._page_of(chat, messages, limit)
        self._listed.move_to_end(chat.key)
        return kept

    @staticmethod
    def _page_of(chat: _Chat, messages: list[Item], limit: int) -> KeptPage:
        kept = chat.page if chat.page is not None and chat.page.limit == limit else None
        if kept is not None and not chat.unpaged:  # made before, or by another reader while this one read
            return kept
        mine = chat.messages is messages
        if kept is not None and mine:
            page = page_after(kept.page, messages, chat.unpaged, limit)
        else:
            page = page_of(messages[: -limit - 1 : -1], more=len(messages) > limit)
        kept = KeptPage(limit, page)
        if mine:
            chat.page, chat.unpaged = kept, 0
        return kept

    async def _read_newest(self, caller: Caller, chat: _Chat, limit: int) -> list[Item]:
        stored = await self._store.messages(chat.key, limit=limit + 1)
        if not is_large(stored):
            messages = encode_messages(reversed(stored))
            self._list(chat, messages, whole=len(stored) <= limit)
            return messages
        del stored  # it is read again, see LargePages
        async with self.large_pages.turns.turn(caller.user.id):
            known = chat.listed(limit) if chat.renames == self._renames else None
            if known is not None:  # another reader has encoded it meanwhile
                return known
            before = chat.changes, self._renames
            stored = await self._store.messages(chat.key, limit=limit + 1)
            messages = await encode_in_slices(stored[::-1])
            if (chat.changes, self._renames) == before:
                self._list(chat, messages, whole=len(stored) <= limit)
        return messages

    def _list(self, chat: _Chat, messages: list[Item], *, whole: bool) -> None:
        """Keep messages that were read; the caller has made sure that nothing was reported since."""
        if self._chats.get(chat.key) is not chat:  # dropped in the meantime: it would miss later posts
            return
        self._drop_messages(chat)
        chat.renames = self._renames
        chat.messages = messages
        chat.listed_to = messages[-1][0] if messages else 0
        chat.whole = whole
        chat.weight = _PAGE + sum(len(item) + _OVERHEAD for _, item in messages)
        self._bytes += chat.weight
        self._listed[chat.key] = chat
        if self._bytes > self._max_bytes:
            self._shrink()

    async def chats(self, caller: Caller, token: str, limit: int) -> bytes:
        application = self._application(token)
        page = self._held_list(application, limit)
        if page is None:
            keys = application.newest
            if keys is None:
                stored = await self._store.chats(token, offset=0, limit=100)
                keys = application.newest = [ChatKey(token, chat.number) for chat in stored]
                for key, chat in zip(keys, stored, strict=True):
                    self._hold(key, chat)  # which may drop the first ones again
            page = await self._page(application, keys[:limit], limit)
        return page

    def _held_list(self, application: _Application, limit: int) -> bytes | None:
        """The application's newest chats; None if one of them is not held."""
        known = application.page
        if known is not None and known[0] == limit:
            return known[1]
        if application.newest is None:
            return None
        items = []
        for key in application.newest[:limit]:
            chat = self._chats.get(key)
            if chat is None or chat.count is None:
                return None
            items.append(encode_chat(key.number, chat.title, chat.count))
        page = b"[" + b",".join(items) + b"]"
        application.page = limit, page
        return page

    async def _page(self, application: _Application, keys: Sequence[ChatKey], limit: int) -> bytes:
        """The encoded list of these chats, made from the cache; chats that are not cached are read."""
        changes = application.changes
        items = []
        for key in keys:
            chat = self._chats.get(key) or await self._load(key)
            if chat is None:  # it was deleted, which is not reported yet
                continue
            if chat.count is None:
                await self._recount(chat)
            items.append(encode_chat(key.number, chat.title, chat.count or 0))
        page = b"[" + b",".join(items) + b"]"
        if application.changes == changes and all(key in self._chats for key in keys):
            application.page = limit, page
        return page

    async def _recount(self, chat: _Chat) -> None:
        stored = await self._store.chat(chat.key)
        if stored is not None:
            chat.count = stored.messages_count
            chat.counted_to = stored.last_number

    # Writing ---------------------------------------------------------------------------------------------------------

    def settled(self, command: Command, outcome: Outcome) -> None:
        """Update the cache with a command's outcome, and tell the chat's listeners.

        Must be called once for each command of every process, in the order of the commits: before this process reports
        the outcome, and before it lets in a request that came after another process has reported it.
        """
        if type(command) is PostMessage:
            if type(outcome) is int:  # not refused, nor Repeated: a retry that found its first try stored
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
        elif isinstance(command, PutMember | AcceptInvite | RemoveMember):
            self._role_changed(command.token, command.user_id)
        elif isinstance(command, HandOver):
            self._role_changed(command.token, command.owner_id)
            self._role_changed(command.token, command.new_owner_id)
        elif isinstance(command, AddChat | RenameChat):
            self._chat_changed(command)
        elif isinstance(command, DeleteChat):
            self._chat_deleted(command.chat)
        elif isinstance(command, DeleteApplication):
            self._application_deleted(command.token)
        elif isinstance(command, RenameUser):
            self._renamed(command.user_id, command.name)
        elif isinstance(command, DeleteUser):
            self._renamed(command.user_id, DELETED_USER)

    def forget(self) -> None:
        """Drop all that is cached, and make the listeners load their chats again: reports may have been missed. Lists
        that are being made are not kept.

        The names of renamed users are dropped too. So a post that was queued before a rename whose report was missed
        has the old name, until the list that it is added to is dropped, see ``names_changed``.
        """
        self._store.forget_ids()
        self._applications = OrderedDict()
        self._chats = OrderedDict()
        self._listed = OrderedDict()
        self._bytes = 0
        self._names.clear()
        self.names_changed()  # the messages of chats that readers still have are out of date too
        self._feed.lost()

    def _role_changed(self, token: str, user_id: int) -> None:
        application = self._applications.get(token)
        if application is not None:
            application.roles.pop(user_id, None)

    def _renamed(self, user_id: int, name: str) -> None:
        self._names[user_id] = name
        self._names.move_to_end(user_id)
        if len(self._names) > _NAMES:  # a post is in flight for seconds, too short for so many renames
            self._names.popitem(last=False)
        self.names_changed()

    def names_changed(self) -> None:
        """Some user was renamed: all cached lists of messages are out of date."""
        self._renames += 1

    def _posted(self, command: PostMessage, number: int) -> None:
        item = None
        if self._feed.heard(command.chat):  # also of a chat that is not held
            item = self._encoded(command, number)
            self._feed.publish(command.chat, Event(number, item))
        chat = self._chats.get(command.chat)
        if chat is None:
            return
        chat.changes += 1
        if number > chat.counted_to and chat.count is not None:
            chat.count += 1
            chat.counted_to = number
            chat.application.changed()
        messages = chat.messages
        if messages is not None and number > chat.listed_to:
            chat.listed_to = number
            item = item or self._encoded(command, number)
            messages.append((number, item))
            weight = len(item) + _OVERHEAD
            if len(messages) >= 2 * _KEPT:
                weight -= sum(len(item) + _OVERHEAD for _, item in messages[:-_KEPT])
                del messages[:-_KEPT]
                chat.whole = False
            self._keep_page(chat)
            chat.weight += weight
            self._bytes += weight
            if self._bytes > self._max_bytes:
                self._shrink()

    @staticmethod
    def _keep_page(chat: _Chat) -> None:
        """A message was added: keep the page while its own messages are held, and it has some of the next page."""
        if chat.page is not None:
            chat.unpaged += 1
            held = len(chat.messages) if chat.messages is not None else 0
            if chat.unpaged >= chat.page.limit or chat.page.limit + chat.unpaged > max(held, _KEPT):
                chat.page, chat.unpaged = None, 0

    def _encoded(self, post: PostMessage, number: int) -> bytes:
        name = self._names.get(post.sender_id, post.sender_name)
        return encode_item(number, post.sender_ref, name, post.body, post.created_at)

    def _deleted(self, command: DeleteMessage) -> None:
        chat = self._chats.get(command.chat)
        if chat is None:
            return
        chat.count = None
        self._drop_messages(chat)
        chat.application.changed()

    def _chat_changed(self, command: AddChat | RenameChat) -> None:
        if isinstance(command, RenameChat):
            chat = self._chats.get(command.chat)
            if chat is not None:
                chat.title = command.title
            application = self._applications.get(command.chat.token)
        else:
            application = self._applications.get(command.token)
        if application is not None:
            application.forget_newest()

    def _chat_deleted(self, key: ChatKey) -> None:
        self._store.forget_ids()
        chat = self._chats.get(key)
        if chat is not None:
            self._let_go(chat)
        application = self._applications.get(key.token)
        if application is not None:
            application.forget_newest()

    def _application_deleted(self, token: str) -> None:
        self._store.forget_ids()
        application = self._applications.pop(token, None)
        if application is not None and application.held:
            for chat in [chat for chat in self._chats.values() if chat.application is application]:
                self._let_go(chat)

    def _drop_messages(self, chat: _Chat) -> None:
        self._listed.pop(chat.key, None)
        self._bytes -= chat.weight
        chat.weight = 0
        chat.changes += 1
        chat.messages = None
        chat.whole = False
        chat.page, chat.unpaged = None, 0

    def _shrink(self) -> None:
        """Drop the lists of messages that were read longest ago until the bound holds, of at most _LISTS_AT_ONCE
        chats."""
        for _ in range(min(_LISTS_AT_ONCE, len(self._listed))):
            self._drop_messages(next(iter(self._listed.values())))
            if self._bytes <= self._max_bytes:
                return
