"""The form of a route, and how a table of them becomes a Starlette application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from hubbub.http.fields import fields
from hubbub.http.media import must_be_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.problems import failure, problem
from hubbub.http.reply import Reply

S = TypeVar("S", bound=msgspec.Struct)

_SAFE = ("GET", "HEAD")
ROUTE = "hubbub.route"  # where the scope says which route it was

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. ``errors`` are the statuses it may refuse with; ``guarded`` routes need credentials."""

    method: str
    path: str
    name: str
    summary: str
    endpoint: Endpoint
    response: Any = None
    status: int = 200
    request: Any = None
    body_required: bool = True
    query: Any = None
    errors: tuple[int, ...] = ()
    guarded: bool = True
    idempotent: bool = False
    streams: bool = False


def response(reply: Reply) -> Response:
    """The reply as Starlette sends it."""
    answer = Response(reply.body, reply.status, media_type=reply.content_type.decode())
    for line in reply.headers.decode("latin-1").splitlines():
        name, _, value = line.partition(": ")
        answer.headers.append(name, value)
    return answer


def json_response(content: Any, status: int = 200) -> Response:
    return response(Reply(status, msgspec.json.encode(content)))


async def body_fields(request: Request, kind: type[S]) -> S:
    """The request's body, checked. Raises UnsupportedMedia, Malformed, Invalid."""
    body = await request.body()
    content_type = request.headers.get("content-type")
    must_be_json(content_type.encode("latin-1") if content_type is not None else None, body)
    return fields(kind, body)


def application(routes: Sequence[Route]) -> Starlette:
    """All routes, one Starlette route for each path, so that a 405 can name every method the path has."""
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = route
    app = Starlette(
        routes=[StarletteRoute(path, _Methods(methods)) for path, methods in paths.items()],
        exception_handlers={HTTPException: _not_found},
    )
    app.router.redirect_slashes = False
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    return response(problem(404, "There is nothing at this path. See /openapi.json for what there is."))


class _Methods:
    """An ASGI application that picks the endpoint by method."""

    def __init__(self, routes: dict[str, Route]) -> None:
        self._routes = dict(routes)
        if "GET" in routes:
            self._routes["HEAD"] = routes["GET"]
        self._allow = ", ".join(sorted(self._routes)).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        route = self._routes.get(scope["method"])
        if route is None:
            allowed = self._allow.decode()
            answer = response(problem(405, f"This path takes {allowed}.", headers=b"allow: %b\r\n" % self._allow))
        else:
            scope[ROUTE] = route.name
            try:
                if scope["method"] not in _SAFE:
                    must_be_own_page(dict(scope["headers"]))
                answer = await route.endpoint(Request(scope, receive))
            except Exception as error:  # noqa: BLE001 - every failure becomes a problem, and is logged there
                answer = response(failure(error))
        await answer(scope, receive, send)
