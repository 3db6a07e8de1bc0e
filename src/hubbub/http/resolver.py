"""Authenticates requests that came by ASGI, and finds what their path names."""

from __future__ import annotations

from starlette.requests import Request

from hubbub.chat.applications import Applications, Membership
from hubbub.chat.caller import Caller
from hubbub.chat.chats import ChatHandle, Chats
from hubbub.chat.errors import NotFound
from hubbub.chat.model import ChatKey
from hubbub.http.fields import number
from hubbub.http.sessions import Session, Sessions


class Resolver:
    """Each method checks the credentials first, and raises Unauthenticated or RateLimited."""

    def __init__(self, sessions: Sessions, applications: Applications, chats: Chats) -> None:
        self._sessions = sessions
        self._applications = applications
        self._chats = chats

    async def session(self, request: Request) -> Session:
        return await self._sessions.of_request(request)

    async def caller(self, request: Request) -> Caller:
        return Caller((await self.session(request)).user)

    async def caller_again(self, request: Request) -> Caller:
        """Of a request that goes on, see Sessions.again_of_request. Raises Unauthenticated."""
        return Caller((await self._sessions.again_of_request(request)).user)

    async def member(self, request: Request, token: str | None = None) -> Membership:
        """Of the application in the path, or of the given one. Raises NotFound."""
        caller = await self.caller(request)
        return await self._applications.enter(caller, request.path_params["token"] if token is None else token)

    async def chat(self, request: Request) -> ChatHandle:
        """The chat in the path. Raises NotFound, also if it can't be a chat's number."""
        caller = await self.caller(request)
        return await self._chats.enter(caller, key_of(request))


def key_of(request: Request) -> ChatKey:
    """The chat in the path. Raises NotFound if it can't be a chat's number."""
    value = number(request.path_params["number"])
    if value is None:
        raise NotFound("There is no such chat in this application.")
    return ChatKey(request.path_params["token"], value)


def message_of(request: Request) -> int:
    """The message in the path. Raises NotFound if it can't be a message's number."""
    value = number(request.path_params["message"])
    if value is None:
        raise NotFound("There is no such message in this chat.")
    return value
