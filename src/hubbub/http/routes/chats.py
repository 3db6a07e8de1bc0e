"""Chats. Their list is in http.hot_routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.chats import ChatHandle
from hubbub.chat.encoding import ChatItem, encode_chat
from hubbub.http import schemas
from hubbub.http.reply import Reply
from hubbub.http.resolver import Resolver
from hubbub.http.routing import body_fields, json_response, response, route


class ChatRoutes:
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    @route(
        "POST",
        "/applications/{token}/chats",
        request=schemas.NewChat,
        body_required=False,
        response=schemas.ChatNumber,
        status=201,
    )
    async def add_chat(self, request: Request) -> Response:
        """Open a chat."""
        member = await self._resolver.member(request)
        form = await body_fields(request, schemas.NewChat)
        return json_response(schemas.ChatNumber(await member.add_chat(form.title)), 201)

    @route("GET", "/applications/{token}/chats/{number}", response=ChatItem)
    async def get_chat(self, request: Request) -> Response:
        """One chat."""
        return await _shown(await self._resolver.chat(request))

    @route("PATCH", "/applications/{token}/chats/{number}", request=schemas.Title, response=ChatItem)
    async def rename_chat(self, request: Request) -> Response:
        """Set a chat's title."""
        chat = await self._resolver.chat(request)
        form = await body_fields(request, schemas.Title)
        await chat.rename(form.title)
        return await _shown(chat)

    @route("DELETE", "/applications/{token}/chats/{number}", status=204, roles=True)
    async def delete_chat(self, request: Request) -> Response:
        """Delete a chat and everything in it; the owner and admins."""
        await (await self._resolver.chat(request)).delete_chat()
        return Response(status_code=204)


async def _shown(chat: ChatHandle) -> Response:
    item = await chat.get()
    return response(Reply(200, encode_chat(item.number, item.title, item.messages_count)))
