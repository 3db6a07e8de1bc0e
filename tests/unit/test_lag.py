"""An answer from a lagging read says so in its header, and no other answer does."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest

from hubbub.chat.applications import Applications
from hubbub.chat.caller import Caller
from hubbub.chat.chats import Chats
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.hot_routes import HotRoutes
from hubbub.http.resolver import Resolver
from hubbub.http.routes.hot_by_asgi import by_asgi
from hubbub.http.routes.messages import MessageRoutes
from hubbub.http.routes.search import SearchRoutes
from hubbub.http.routing import application, routes_of
from hubbub.http.sessions import Session
from tests.unit.fakes import MEMBER, TOKEN, Fakes

MESSAGES = f"/api/v1/applications/{TOKEN}/chats/1/messages"


class LoggedIn:
    """Sessions in which every request is the member's."""

    async def of_request(self, _request: object) -> Session:
        return Session("session", MEMBER.user, "", 0, 0, False, "")

    async def enter(self, *_: object) -> Caller:
        return MEMBER


@pytest.mark.parametrize("lag", [False, True])
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "", None, 200),
        ("GET", "?page=2&limit=2", None, 200),
        ("GET", "?before=4", None, 200),
        ("GET", "?after=2", None, 200),
        ("GET", "?after=5", None, 200),
        ("GET", "/3", None, 200),
        ("GET", "/6", None, 404),
        ("GET", "/search?q=message", None, 200),
        ("GET", "/search?q=nothing", None, 200),
        ("PATCH", "/3", {"body": "x"}, 200),
        ("PATCH", "/6", {"body": "x"}, 404),
        ("PUT", "", {"messageNumber": 3, "body": "x"}, 200),
        ("DELETE", "/6", None, 404),
    ],
)
async def test_the_header(method: str, path: str, body: object, status: int, lag: bool) -> None:
    fakes = Fakes()
    fakes.view.lag = lag
    sessions: Any = cast(Any, LoggedIn())
    applications, chats = Applications(fakes.ports), Chats(fakes.ports)
    resolver = Resolver(sessions, applications, chats)
    hot = by_asgi(HotRoutes(sessions, applications, chats), resolver)
    app = application([*hot, *routes_of(MessageRoutes(resolver)), *routes_of(SearchRoutes(resolver))], AnonymousRate())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        answer = await client.request(method, MESSAGES + path, json=body)
    if lag and status == 404 and method != "GET":
        assert answer.status_code == 503, "what may be there is not refused for good"
    else:
        assert answer.status_code == status
        assert answer.headers.get("hubbub-lag") == ("queue" if lag else None)
