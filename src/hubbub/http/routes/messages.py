"""Messages by their number. Posting and listing them is in http.hot_routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.chats import Found
from hubbub.chat.encoding import MessageItem, encode_message
from hubbub.http import schemas
from hubbub.http.reply import Reply, lagging
from hubbub.http.resolver import Resolver, message_of
from hubbub.http.routing import body_fields, response, route

_PATH = "/applications/{token}/chats/{number}/messages"


class MessageRoutes:
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    @route("PUT", _PATH, request=schemas.NumberedMessage, response=MessageItem, roles=True, lags=True)
    async def edit_numbered_message(self, request: Request) -> Response:
        """Edit the message numbered in the body; its sender only."""
        chat = await self._resolver.chat(request)
        form = await body_fields(request, schemas.NumberedMessage)
        await chat.edit(form.message_number, form.body)
        return _shown(await chat.existing(form.message_number))

    @route("GET", _PATH + "/{message}", response=MessageItem, lags=True)
    async def get_message(self, request: Request) -> Response:
        """One message."""
        return _shown(await (await self._resolver.chat(request)).message(message_of(request)))

    @route("PATCH", _PATH + "/{message}", request=schemas.NewMessage, response=MessageItem, roles=True, lags=True)
    async def edit_message(self, request: Request) -> Response:
        """Edit a message; its sender only."""
        chat, number = await self._resolver.chat(request), message_of(request)
        await chat.existing(number)
        form = await body_fields(request, schemas.NewMessage)
        await chat.edit(number, form.body)
        return _shown(await chat.existing(number))

    @route("DELETE", _PATH + "/{message}", status=204, roles=True, lags=True)
    async def delete_message(self, request: Request) -> Response:
        """Delete a message; its sender, the owner and admins."""
        await (await self._resolver.chat(request)).delete(message_of(request))
        return Response(status_code=204)


def _shown(found: Found) -> Response:
    return response(Reply(200, encode_message(found.message), headers=lagging(found.lag)))
