"""Chats and their messages. ``Chats.enter`` lets only members in, and gives a ChatHandle."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import NamedTuple

from hubbub.chat.applications import must_manage, no_application
from hubbub.chat.caller import Caller
from hubbub.chat.commands import DeleteChat, DeleteMessage, EditMessage, RenameChat
from hubbub.chat.deep_pages import DEEP
from hubbub.chat.errors import Forbidden, NotFound, Unavailable
from hubbub.chat.model import Chat, ChatKey, Message, MessagesRead, Page, Role, is_token
from hubbub.chat.ports import Ports
from hubbub.chat.searches import Searches
from hubbub.chat.ticket import Ticket

_NO_CHAT = "There is no such chat in this application."
_NO_MESSAGE = "There is no such message in this chat."


class Found(NamedTuple):
    """One message; ``lag``: see model.MessagesRead."""

    message: Message
    lag: bool


class Chats:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._searches = Searches(ports.view, ports.index)

    async def enter(self, caller: Caller, key: ChatKey) -> ChatHandle:
        """Raises NotFound for a stranger to the application, and where there is no such chat in it."""
        view = self._ports.view
        role = await view.role(caller, key.token) if is_token(key.token) else None
        if role is None:
            raise no_application()
        if not await view.exists(caller, key):
            raise NotFound(_NO_CHAT)
        return ChatHandle(self._ports, self._searches, caller, key, role)


class ChatHandle:
    """What a member may do in a chat, for one request: the role is the one at its start."""

    __slots__ = ("_caller", "_key", "_ports", "_role", "_searches")

    def __init__(self, ports: Ports, searches: Searches, caller: Caller, key: ChatKey, role: Role) -> None:
        self._ports = ports
        self._searches = searches
        self._caller = caller
        self._key = key
        self._role = role

    async def get(self) -> Chat:
        chat = await self._ports.store.chat(self._key)
        if chat is None:
            raise NotFound(_NO_CHAT)
        return chat

    async def rename(self, title: str | None) -> None:
        await self._ports.intake.accept(RenameChat(self._key, title))

    async def delete_chat(self) -> None:
        """Delete the chat with everything in it. Raises Forbidden unless the caller is the owner or an admin."""
        if not self._role.manages:
            raise must_manage()
        await self._ports.intake.accept(DeleteChat(self._key, self._caller.user.id))

    # Reading -----------------------------------------------------------------------------------------------------

    def newest(self, limit: int) -> Awaitable[Page]:
        return self._ports.view.newest(self._caller, self._key, limit)

    async def messages(
        self, *, limit: int, offset: int = 0, before: int | None = None, after: int | None = None
    ) -> Page:
        """A page of messages. The parameters are those of chat.ports.Store.messages."""
        if offset == 0 and before is None and after is None:
            return await self.newest(limit)
        ports, user_id = self._ports, self._caller.user.id
        read = partial(ports.view.messages, self._key)
        large_pages = ports.view.large_pages
        if after is not None:
            page = await large_pages.page(user_id, partial(read, limit=limit, after=after), limit)
            return page._replace(more=after > 0)
        read = partial(read, limit=limit + 1, offset=offset, before=before)
        if offset <= DEEP:
            return await large_pages.page(user_id, read, limit)
        async with ports.deep_pages.turn(user_id, offset):  # so that the user's other pages don't wait for this one
            return await large_pages.encoded(user_id, read, limit)

    async def since(self, after: int, limit: int) -> MessagesRead:
        """Up to ``limit`` messages above a number, oldest first."""
        shown = await self._ports.view.messages(self._key, limit=limit, after=after)
        return shown._replace(messages=shown.messages[::-1])

    async def numbered(self, numbers: Sequence[int]) -> MessagesRead:
        """The messages with these numbers that exist, oldest first."""
        shown = await self._ports.view.numbered(self._key, numbers)
        return shown._replace(messages=sorted(shown.messages, key=lambda message: message.number))

    async def message(self, number: int) -> Found:
        """Raises NotFound."""
        shown = await self._ports.view.message(self._key, number)
        if not shown.messages:
            raise NotFound(_NO_MESSAGE, lag=shown.lag)
        return Found(shown.messages[0], shown.lag)

    def search(self, q: str, *, offset: int, limit: int) -> Awaitable[Page]:
        """See Searches.find."""
        return self._searches.find(self._caller.user.id, self._key, q, offset=offset, limit=limit)

    # Writing -----------------------------------------------------------------------------------------------------

    def post(self, body: str, idempotency_key: str | None = None) -> Awaitable[Ticket]:
        """Send a message, see chat.ports.Intake."""
        return self._ports.intake.post(self._caller, self._key, body, idempotency_key)

    async def edit(self, number: int, body: str) -> None:
        """Raises Forbidden unless the caller sent the message."""
        user = self._caller.user
        if (await self.existing(number)).message.sender_id != user.id:
            raise Forbidden("Only the sender of a message may edit it.")
        await self._ports.intake.accept(EditMessage(self._key, number, user.id, body, self._ports.now()))

    async def delete(self, number: int) -> None:
        """Raises Forbidden unless the caller sent the message, or is the application's owner or an admin."""
        user, manages = self._caller.user, self._role.manages
        if (await self.existing(number)).message.sender_id != user.id and not manages:
            raise Forbidden("Only the sender of a message, the application's owner and its admins may delete it.")
        await self._ports.intake.accept(DeleteMessage(self._key, number, user.id, any_sender=manages))

    async def existing(self, number: int) -> Found:
        """As ``message``, for one that will be changed or was: a lagging answer does not count.

        Raises:
            NotFound: there is none.
            Unavailable: there may be one.
        """
        try:
            return await self.message(number)
        except NotFound as error:
            if error.lag:
                raise Unavailable("The message can't be shown now. Try again a little later.") from error
            raise
