"""Declares routes, and makes a Starlette application of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from hubbub.chat.errors import RateLimited, Unauthenticated
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.fields import fields
from hubbub.http.media import must_be_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.problems import LATE_S, failure, problem
from hubbub.http.reply import Reply

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

H = TypeVar("H", bound=Callable[..., Any])

SAFE = ("GET", "HEAD")
BASE = "/api/v1"
MAX_OPEN_BODY = 16 * 1024  # of a route that needs no session: the longest login takes 14 KB, every character escaped
ROUTE = "hubbub.route"  # where the scope says which route it was
_DECLARED = "_declared_route"

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation.

    ``guarded`` routes need credentials, and ``roles`` more than being a member. ``lags`` and ``truncates`` say that an
    answer may carry Hubbub-Lag, Hubbub-Truncated. ``refuses`` are statuses that follow from nothing else here.
    ``fails`` says that a 503 has the form of a success, and not of a problem.
    """

    method: str
    path: str
    name: str
    summary: str
    endpoint: Any = None
    request: Any = None
    body_required: bool = True
    query: Any = None
    response: Any = None
    status: int = 200
    guarded: bool = True
    roles: bool = False
    idempotent: bool = False
    streams: bool = False
    lags: bool = False
    truncates: bool = False
    fails: bool = False
    refuses: tuple[int, ...] = ()

    @property
    def errors(self) -> list[int]:
        """Every status that the route may refuse with."""
        found = {429, *self.refuses}
        if self.guarded:
            found |= {401, 503}
        if self.roles or self.method not in SAFE:
            found.add(403)  # for the latter, to a page of another site
        if "{" in self.path:
            found.add(404)
        if self.request is not None:
            found |= {400, 413, 415, 422}
        if self.query is not None:
            found.add(422)
        if self.idempotent:
            found.add(409)
        return sorted(found)


def route(method: str, path: str, **form: Any) -> Callable[[H], H]:
    """Declares the method below it as a route's handler; ``form`` are further fields of Route. The method's name and
    the first line of its docstring are the operation's.
    """

    def declare(handler: H) -> H:
        first, *rest = handler.__name__.split("_")
        name = first + "".join(word.capitalize() for word in rest)
        summary = (handler.__doc__ or "").partition("\n")[0].removesuffix(".")
        setattr(handler, _DECLARED, Route(method=method, path=path, name=name, summary=summary, **form))
        return handler

    return declare


def routes_of(handlers: Any, base: str = BASE) -> list[Route]:
    """The routes that are declared on the methods of an object, or of a class if they are only looked at."""
    kind = handlers if isinstance(handlers, type) else type(handlers)
    declared = {name: getattr(method, _DECLARED) for name, method in vars(kind).items() if hasattr(method, _DECLARED)}
    return [
        msgspec.structs.replace(form, path=base + form.path, endpoint=getattr(handlers, name))
        for name, form in declared.items()
    ]


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


async def while_there(request: Request, work: Awaitable[T]) -> T | None:
    """The work's result; None when the client left first, which cancels the work. The body must have been read, or not
    be needed.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_leave(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _leave(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def application(routes: Sequence[Route], anonymous: AnonymousRate) -> Starlette:
    """All routes, one Starlette route for each path, so that a 405 can name every method the path has."""
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = route
    app = Starlette(
        # The first that fits is taken: sorted, "/messages/search" comes before "/messages/{message}".
        routes=[StarletteRoute(path, _Methods(paths[path], anonymous)) for path in sorted(paths)],
        exception_handlers={HTTPException: _NotFound(anonymous)},
    )
    app.router.redirect_slashes = False
    return app


async def _refused(error: Exception) -> Response:
    """The answer when handling a request raised."""
    answer = response(failure(error))
    if answer.status_code == 429:
        await asyncio.sleep(LATE_S)
    return answer


class _NotFound:
    """The answer where no route has the path."""

    def __init__(self, anonymous: AnonymousRate) -> None:
        self._anonymous = anonymous

    async def __call__(self, request: Request, error: Exception) -> Response:
        try:
            self._anonymous.count_request(request, len(await request.body()))
        except RateLimited as refusal:
            return await _refused(refusal)
        return response(problem(404, "There is nothing at this path. /openapi.json lists all paths."))


class _Methods:
    """An ASGI application that picks the endpoint by method."""

    def __init__(self, routes: dict[str, Route], anonymous: AnonymousRate) -> None:
        self._anonymous = anonymous
        self._routes = dict(routes)
        if "GET" in routes:
            self._routes["HEAD"] = routes["GET"]
        self._allow = ", ".join(sorted(self._routes)).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        try:
            answer = await self._answer(request, self._routes.get(request.method))
        except Exception as error:  # noqa: BLE001 - every failure becomes a problem, and is logged there
            answer = await _refused(error)
        await answer(scope, receive, send)

    async def _answer(self, request: Request, route: Route | None) -> Response:
        if route is None:
            self._anonymous.count_request(request, len(await request.body()))
            allowed = self._allow.decode()
            return response(problem(405, f"This path allows {allowed}.", headers=b"allow: %b\r\n" % self._allow))
        request.scope[ROUTE] = route.name
        if request.method not in SAFE:
            must_be_own_page(dict(request.scope["headers"]))
        if not route.guarded:
            size = len(await request.body())
            self._anonymous.count_request(request, size)
            if route.request is not None and size > MAX_OPEN_BODY:
                return response(problem(413, f"The body of this request may have at most {MAX_OPEN_BODY} bytes."))
        try:
            answer: Response = await route.endpoint(request)
        except Unauthenticated:
            if route.guarded:  # who has no session is refused before the body is looked at
                self._anonymous.count_request(request, 0)
            raise
        return answer
