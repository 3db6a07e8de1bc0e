"""Searching a chat."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.encoding import MessageItem
from hubbub.http import schemas
from hubbub.http.fields import query
from hubbub.http.reply import TRUNCATED, Reply, lagging
from hubbub.http.resolver import Resolver
from hubbub.http.routing import response, route, while_there


class SearchRoutes:
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    @route(
        "GET",
        "/applications/{token}/chats/{number}/messages/search",
        query=schemas.Search,
        response=list[MessageItem],
        lags=True,
        truncates=True,
    )
    async def search_messages(self, request: Request) -> Response:
        """Messages that match, best first, then newest."""
        chat = await self._resolver.chat(request)
        wanted = query(schemas.Search, request.scope["query_string"])
        page = await while_there(request, chat.search(wanted.q, offset=wanted.offset, limit=wanted.limit))
        if page is None:
            return Response(status_code=204)  # the client has left, but the answer is counted
        return response(Reply(200, page.body, headers=lagging(page.lag) + (TRUNCATED if page.truncated else b"")))
