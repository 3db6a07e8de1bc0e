"""The hot routes for requests that come by ASGI: HEAD, or a path in an unusual spelling."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubbub.chat.errors import NotFound
from hubbub.chat.model import ChatKey
from hubbub.chat.ticket import Ticket
from hubbub.http.hot_routes import Call, Handler, HotRoutes
from hubbub.http.resolver import Resolver, key_of
from hubbub.http.routing import Endpoint, Route, response, routes_of


def by_asgi(hot: HotRoutes, resolver: Resolver) -> list[Route]:
    def endpoint_of(handler: Handler) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            number = 0
            if "number" in request.path_params:
                try:
                    number = key_of(request).number
                except NotFound:
                    await resolver.caller(request)  # credentials come before what the path says, here as everywhere
                    raise
            scope = request.scope
            call = Call(
                ChatKey(request.path_params["token"], number),
                scope["query_string"],
                dict(scope["headers"]),
                await request.body(),
            )
            result = await handler(call)
            return response(hot.posted(await result) if isinstance(result, Ticket) else result)

        return endpoint

    return [msgspec.structs.replace(route, endpoint=endpoint_of(route.endpoint)) for route in routes_of(hot)]
