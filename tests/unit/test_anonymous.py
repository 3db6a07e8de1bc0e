"""Requests without a session: how many an address may send, and how large they may be."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from hubbub.chat.errors import RateLimited, Unauthenticated
from hubbub.chat.model import ChatKey
from hubbub.http import anonymous, connection, routing
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.edge import Edge
from hubbub.http.routing import MAX_OPEN_BODY, application, body_fields, route, routes_of
from hubbub.http.schemas import UserName
from hubbub.http.shares import EXEMPT
from tests.unit.test_connection import GET, App, connected, settled

MOST = 3
PROXY = "10.0.0.1"


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anonymous, "RATE", 0.001)
    monkeypatch.setattr(anonymous, "_BURST_S", MOST * 1000)
    monkeypatch.setattr(routing, "LATE_S", 0)
    monkeypatch.setattr(connection, "LATE_S", 0)


class Routes:
    @route("GET", "/open", guarded=False)
    async def open(self, request: Request) -> Response:
        """A route that is open to everybody."""
        return Response()

    @route("POST", "/open", guarded=False, request=UserName)
    async def post(self, request: Request) -> Response:
        """A route with a body that is open to everybody."""
        await body_fields(request, UserName)
        return Response()

    @route("GET", "/guarded")
    async def guarded(self, request: Request) -> Response:
        """A route that needs a session."""
        if "cookie" not in request.headers:
            raise Unauthenticated("Log in.")
        return Response()


async def status_of(app: Any, path: str, method: str = "GET", address: str = "192.0.2.1", **more: Any) -> int:
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return (await client.request(method, path, **more)).status_code


async def status_of_post(app: Any, body: bytes) -> int:
    return await status_of(app, "/open", "POST", content=body, headers={"content-type": "application/json"})


@pytest.fixture
def app() -> Any:
    return application(routes_of(Routes(), base=""), AnonymousRate((PROXY,)))


def test_each_address_has_its_own_rate() -> None:
    rate = AnonymousRate()
    for address in ("192.0.2.1", "192.0.2.2"):
        for _ in range(MOST):
            rate.count(address, 1023)
        with pytest.raises(RateLimited):
            rate.count(address, 0)
    for _ in range(3 * MOST):
        rate.count(EXEMPT, 10_000)


def test_a_large_body_counts_as_many_requests() -> None:
    rate = AnonymousRate()
    rate.count("192.0.2.1", (MOST - 1) * 1024)
    with pytest.raises(RateLimited):
        rate.count("192.0.2.1", 0)


async def test_requests_without_a_session_count_and_others_do_not(app: Any) -> None:
    for _ in range(3 * MOST):
        assert await status_of(app, "/guarded", headers={"cookie": "a=b"}) == 200
    assert await status_of(app, "/open") == 200
    assert await status_of(app, "/nowhere") == 404
    assert await status_of(app, "/guarded") == 401
    for path in ("/open", "/nowhere", "/guarded"):
        assert await status_of(app, path) == 429
    assert await status_of(app, "/open", "DELETE") == 429
    assert await status_of(app, "/guarded", headers={"cookie": "a=b"}) == 200
    assert await status_of(app, "/open", address="192.0.2.2") == 200


async def test_a_body_is_not_read_once_the_rate_is_used_up(app: Any) -> None:
    for _ in range(MOST):
        assert await status_of_post(app, b"[]") == 400
    assert await status_of_post(app, b"[]") == 429


async def test_clients_behind_a_proxy_are_counted_separately(app: Any) -> None:
    proxied = ProxyHeadersMiddleware(app, trusted_hosts=[PROXY])
    for _ in range(MOST):
        assert await status_of(proxied, "/open", address=PROXY, headers={"x-forwarded-for": "192.0.2.1"}) == 200
    assert await status_of(proxied, "/open", address=PROXY, headers={"x-forwarded-for": "192.0.2.1"}) == 429
    assert await status_of(proxied, "/open", address=PROXY, headers={"x-forwarded-for": "192.0.2.2"}) == 200
    for _ in range(2 * MOST):
        assert await status_of(proxied, "/open", address=PROXY) == 200


async def test_a_large_body_is_refused_where_no_session_is_needed(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anonymous, "RATE", 2000)
    fits = b'{"name":"' + b"x" * 200 + b'"}'
    assert await status_of_post(app, fits.ljust(MAX_OPEN_BODY)) == 200
    assert await status_of_post(app, fits.ljust(MAX_OPEN_BODY + 1)) == 413


class Stranger:
    """Hot routes that refuse each request because it has no session."""

    async def refuse(self, _call: Any) -> Any:
        raise Unauthenticated("Log in.")

    def match(self, _method: bytes, _target: bytes) -> Any:
        return self.refuse, ChatKey("token", 1), b"", "list"


async def test_hot_routes_count_clients_without_a_session() -> None:
    edge = Edge(cast(Any, Stranger()), App())
    edge.tick()
    protocol, transport = connected(App(), edge)
    for _ in range(MOST + 1):
        protocol.data_received(GET)
        await settled()
    assert transport.written.count(b"HTTP/1.1 401 ") == MOST
    assert transport.written.count(b"HTTP/1.1 429 ") == 1
