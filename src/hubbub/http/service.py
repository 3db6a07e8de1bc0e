"""Builds everything that serves HTTP from the adapters of a mode."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from hubbub.chat.accounts import Accounts
from hubbub.chat.applications import Applications
from hubbub.chat.chats import Chats
from hubbub.chat.errors import ChatError
from hubbub.chat.feed import Feed
from hubbub.chat.logins import Logins
from hubbub.chat.operators import Operators
from hubbub.chat.ports import Counts, Gate, Intake, Passwords, Ports, SearchIndex, Store, View
from hubbub.chat.quotas import Hourly, Quotas
from hubbub.chat.recovery import Recovery
from hubbub.chat.registration import Policy, Registration
from hubbub.console import Console
from hubbub.http.access_log import AccessLog
from hubbub.http.access_log import log as access_log
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.edge import Edge
from hubbub.http.hot_routes import HotRoutes
from hubbub.http.login_log import LoginLog
from hubbub.http.mail import Mail
from hubbub.http.metrics import Reading, serving
from hubbub.http.operator import Letters, RecentErrors
from hubbub.http.overview import Figures, Gathered, Overview, nobody
from hubbub.http.resolver import Resolver
from hubbub.http.routes.accounts import AccountRoutes
from hubbub.http.routes.applications import ApplicationRoutes
from hubbub.http.routes.chats import ChatRoutes
from hubbub.http.routes.hot_by_asgi import by_asgi
from hubbub.http.routes.invites import InviteRoutes
from hubbub.http.routes.members import MemberRoutes
from hubbub.http.routes.messages import MessageRoutes
from hubbub.http.routes.operator import OperatorRoutes
from hubbub.http.routes.pages import PageRoutes
from hubbub.http.routes.recovery import RecoveryRoutes
from hubbub.http.routes.search import SearchRoutes
from hubbub.http.routes.service import ServiceRoutes
from hubbub.http.routes.setup import SetupRoutes
from hubbub.http.routes.stream import StreamRoutes
from hubbub.http.routing import application, routes_of
from hubbub.http.sessions import Sessions
from hubbub.http.shortcuts import Makes, shortcut_of
from hubbub.http.stream_limiter import StreamLimiter
from hubbub.http.turns import Turns
from hubbub.measures import Histogram
from hubbub.tracing import Tracing


@dataclass(frozen=True)
class Adapters:
    """What a mode (embedded or cluster) provides: an adapter for each port, and its state.

    ``shortcuts`` makes those of its most frequent requests. ``faults`` has for each part what is wrong with it, or
    None; ``readings`` are its own figures for /metrics. Where several processes serve behind one address, the first has
    the figures of the ``others``, and each of these has what the ``first`` shows.
    """

    store: Store
    intake: Intake
    view: View
    shortcuts: Callable[[Sessions], Makes]
    index: SearchIndex
    gate: Gate
    counts: Counts
    passwords: Passwords
    feed: Feed
    letters: Letters
    secret: bytes
    faults: Callable[[], dict[str, str | None]]
    readings: Callable[[], Awaitable[list[Reading | Histogram]]]
    others: Callable[[], Awaitable[Sequence[Figures]]] = nobody
    first: Overview | None = None


def edge_of(
    adapters: Adapters,
    *,
    proxies: Sequence[str],
    address_connections: int,
    operators: Sequence[str],
    registration: Policy,
    public_url: str,
    mail: Mail | None,
    user_streams: int,
    hourly: Hourly,
    tracing: Tracing | None,
) -> Edge:
    """Everything that serves HTTP with the mode's adapters."""
    accounts = Accounts(adapters.store, adapters.intake, adapters.passwords, now)
    ports = Ports(adapters.store, adapters.intake, adapters.view, adapters.index, Quotas(adapters.counts, hourly), now)
    applications, chats = Applications(ports), Chats(ports)
    sessions = Sessions(accounts, adapters.secret, adapters.gate)
    resolver = Resolver(sessions, applications, chats)
    limiter = StreamLimiter(user_streams)
    turns = Turns()
    hot = HotRoutes(sessions, applications, chats)

    async def ready() -> dict[str, str | None]:
        try:
            await adapters.store.application("")
            unreadable = None
        except ChatError as error:
            unreadable = error.sentence
        faults = adapters.faults()
        return {**faults, "store": faults.get("store") or unreadable}

    async def readings() -> list[Reading | Histogram]:
        return [*serving(edge.requests, len(edge.connections), limiter.taken), *await adapters.readings()]

    errors = RecentErrors()
    logging.getLogger("hubbub").addHandler(errors)
    gathered = Gathered(readings, errors, adapters.others)
    shown = adapters.first or gathered
    operating, logins, log = Operators(adapters.store, operators), Logins(adapters.counts), LoginLog()
    registering = Registration(adapters.store, adapters.intake, accounts, registration, operating.named, now)
    recovery = Recovery(adapters.store, adapters.intake, adapters.passwords, now)
    api = [
        *routes_of(AccountRoutes(accounts, registering, sessions, logins, log, operating)),
        *routes_of(SetupRoutes(registering, sessions, logins, log)),
        *routes_of(RecoveryRoutes(recovery, sessions, logins, log, mail, public_url)),
        *routes_of(InviteRoutes(resolver, applications, logins, log, public_url)),
        *routes_of(ApplicationRoutes(resolver, applications)),
        *routes_of(MemberRoutes(resolver)),
        *routes_of(ChatRoutes(resolver)),
        *by_asgi(hot, resolver),
        *routes_of(MessageRoutes(resolver)),
        *routes_of(SearchRoutes(resolver)),
        *routes_of(StreamRoutes(resolver, chats, adapters.feed, limiter, turns)),
        *routes_of(OperatorRoutes(resolver, operating, shown, adapters.letters)),
    ]
    itself = routes_of(ServiceRoutes(ready, shown, api), base="")
    trusted: Container[str] = ()
    middleware: ProxyHeadersMiddleware | None = None
    if proxies:
        middleware = ProxyHeadersMiddleware(cast(Any, None), trusted_hosts=list(proxies))
        trusted = cast(Container[str], middleware.trusted_hosts)
    anonymous = AnonymousRate(trusted)
    app: Any = application([*api, *itself, *routes_of(PageRoutes(Console()), base="")], anonymous)
    if middleware is not None:
        middleware.app, app = app, middleware
    access = AccessLog(sessions.user_of, middleware) if access_log.isEnabledFor(logging.INFO) else None
    edge = Edge(
        hot,
        app,
        tracing,
        adapters.feed.end,
        trusted=trusted,
        address_connections=address_connections,
        access=access,
        turns=turns,
        anonymous=anonymous,
        user_of=sessions.user_of,
        shortcut=partial(shortcut_of, adapters.shortcuts(sessions)),
    )
    edge.overview = gathered
    edge.tick()
    return edge


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
