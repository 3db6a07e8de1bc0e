"""Chats and their messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hubbub.chat import search
from hubbub.chat.applications import Applications
from hubbub.chat.commands import AddChat, DeleteMessage, EditMessage, RenameChat
from hubbub.chat.encoding import encode_chats, encode_page
from hubbub.chat.errors import Forbidden, NotFound, Unavailable
from hubbub.chat.model import Chat, ChatKey, Message, Page, User
from hubbub.chat.ports import Intake, SearchIndex, Store, View
from hubbub.chat.search import Query
from hubbub.chat.ticket import Ticket

_SEARCHES = 16
_NO_CHAT = "There is no such chat in this application."
_NO_MESSAGE = "There is no such message in this chat."


class Chats:
    """Every method takes the caller first and refuses a stranger with NotFound before anything else."""

    def __init__(
        self,
        applications: Applications,
        store: Store,
        intake: Intake,
        view: View,
        index: SearchIndex,
        now: Callable[[], int],
    ) -> None:
        self._applications = applications
        self._index = index
        self._searching = 0  # searches under way: each takes some milliseconds of CPU, so they must not pile up
        self._store = store
        self._intake = intake
        self._view = view
        self._now = now

    async def add(self, user: User, token: str, title: str | None) -> int:
        """A new chat's number."""
        await self._applications.role(user, token)
        number: int = await self._intake.accept(AddChat(token, title, self._now()))
        return number

    async def rename(self, user: User, key: ChatKey, title: str | None) -> None:
        await self.must_exist(user, key)
        await self._intake.accept(RenameChat(key, title))

    async def get(self, user: User, key: ChatKey) -> Chat:
        await self._applications.role(user, key.token)
        chat = await self._store.chat(key)
        if chat is None:
            raise NotFound(_NO_CHAT)
        return chat

    async def list(self, user: User, token: str, *, offset: int, limit: int, seen: object = None) -> bytes:
        """The application's chats as JSON, newest first."""
        await self._applications.role(user, token, seen)
        if offset == 0:
            return await self._view.chats(token, limit, seen)
        return encode_chats(await self._store.chats(token, offset=offset, limit=limit))

    async def must_exist(self, user: User, key: ChatKey, seen: object = None) -> None:
        """Raises NotFound unless the user is a member and the chat is there."""
        await self._applications.role(user, key.token, seen)
        if not await self._view.exists(key):
            raise NotFound(_NO_CHAT)

    async def messages(
        self,
        user: User,
        key: ChatKey,
        *,
        limit: int,
        offset: int = 0,
        before: int | None = None,
        after: int | None = None,
        seen: object = None,
    ) -> Page:
        await self.must_exist(user, key, seen)
        if offset == 0 and before is None and after is None:
            return await self._view.newest(key, limit, seen)
        if after is None:
            return encode_page(await self._view.messages(key, limit=limit + 1, offset=offset, before=before), limit)
        page = encode_page(await self._view.messages(key, limit=limit, after=after), limit)
        return page._replace(more=after > 0)

    async def since(self, user: User, key: ChatKey, after: int) -> Sequence[Message]:
        """Up to a hundred messages next above a number, oldest first."""
        await self.must_exist(user, key)
        return (await self._view.messages(key, limit=100, after=after))[::-1]

    async def newest_number(self, user: User, key: ChatKey) -> int:
        """0 in an empty chat."""
        await self.must_exist(user, key)
        return (await self._view.newest(key, 1)).newest or 0

    async def message(self, user: User, key: ChatKey, number: int) -> Message:
        await self.must_exist(user, key)
        message = await self._view.message(key, number)
        if message is None:
            raise NotFound(_NO_MESSAGE)
        return message

    async def search(self, user: User, key: ChatKey, q: str, *, offset: int, limit: int) -> Page:
        """The messages that match ``q``, best first, then newest, among the newest thousand that may. None of it is
        syntax; with nothing in it that can be searched for, nothing is found.

        Raises:
            Unavailable: the index can't be asked now, or too many are searching.
        """
        await self.must_exist(user, key)
        query = search.parse(q)
        if not query.terms:
            return encode_page([], limit)
        if self._searching >= _SEARCHES:
            raise Unavailable("Too many are searching just now. Try again in a moment.", retry_after=1)
        self._searching += 1
        try:
            return await self._search(key, query, offset, limit)
        finally:
            self._searching -= 1

    async def _search(self, key: ChatKey, query: Query, offset: int, limit: int) -> Page:
        found: list[Message] = []
        for typos in (False, True):
            if len(found) > offset + limit:
                break  # those with typos come after all of these
            numbers = await self._index.candidates(key, query, typos=typos)
            held = {message.number for message in found}
            messages = await self._view.numbered(key, [number for number in numbers if number not in held])
            found = await asyncio.to_thread(search.rank, query, [*found, *messages])  # some 10 ms for a thousand
        return encode_page(found[offset : offset + limit + 1], limit)

    async def post(
        self,
        user: User,
        key: ChatKey,
        body: str,
        idempotency_key: str | None = None,
        seen: object = None,
        trace: str = "",
    ) -> Ticket:
        """Send a message, see chat.ports.Intake. ``must_exist`` comes first."""
        return await self._intake.post(user, key, body, idempotency_key, seen, trace)

    async def edit(self, user: User, key: ChatKey, number: int, body: str) -> None:
        """Raises Forbidden unless the user sent the message."""
        message = await self.message(user, key, number)
        if message.sender_id != user.id:
            raise Forbidden("Only its sender may edit a message.")
        await self._intake.accept(EditMessage(key, number, user.id, body, self._now()))

    async def delete(self, user: User, key: ChatKey, number: int) -> None:
        """Raises Forbidden unless the user sent the message, or is the application's owner or an admin."""
        role = await self._applications.role(user, key.token)
        message = await self.message(user, key, number)
        if message.sender_id != user.id and not role.manages:
            raise Forbidden("Only its sender, the application's owner and its admins may delete a message.")
        await self._intake.accept(DeleteMessage(key, number, user.id, any_sender=role.manages))
