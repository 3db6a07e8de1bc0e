"""A cluster's most frequent requests, answered by plain calls when the gate's trip is back, are answered as by their
routes, and refused as there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from hubbub.chat.accounts import Accounts
from hubbub.chat.applications import Applications
from hubbub.chat.chats import Chats
from hubbub.chat.commands import AddApplication, AddChat, AddUser, PutMember, RemoveMember
from hubbub.chat.model import ChatKey, Role, User
from hubbub.chat.ports import Ports
from hubbub.chat.quotas import Hourly, Quotas
from hubbub.cluster.one_trip import RedisTrip
from hubbub.cluster.redis.connection import RedisClient
from hubbub.http.edge import Edge
from hubbub.http.hot_routes import Call, HotRoutes
from hubbub.http.limits import MemoryCounts
from hubbub.http.reply import Reply
from hubbub.http.service import now
from hubbub.http.sessions import Sessions
from hubbub.http.shortcuts import TripShortcuts, shortcut_of
from hubbub.loadtest.servers import MariaDb, RabbitMq, Redis
from tests.conftest import eventually_async
from tests.ports.cluster import Way, cluster
from tests.unit.test_connection import App, Transport, connected

CHAT = ChatKey("token", 1)
CHATS = b"GET /api/v1/applications/token/chats"
MESSAGES = b"GET /api/v1/applications/token/chats/1/messages"
POST = b"POST /api/v1/applications/token/chats/1/messages"
ALL = [CHATS, MESSAGES, POST]


class Routes(HotRoutes):
    """Hot routes that count what they handle."""

    handled = 0

    async def post_message(self, call: Call) -> Any:
        self.handled += 1
        return await super().post_message(call)

    async def list_messages(self, call: Call) -> Reply:
        self.handled += 1
        return await super().list_messages(call)

    async def list_chats(self, call: Call) -> Reply:
        self.handled += 1
        return await super().list_chats(call)


class Client:
    """A user's client of a process, over one connection."""

    def __init__(self, edge: Edge, token: str) -> None:
        self.protocol, self._transport = connected(App(), edge)
        self._token = token

    @property
    def written(self) -> bytes:
        return bytes(self._transport.written)

    def send(self, line: bytes, body: bytes = b'{"body":"hello"}') -> None:
        posts = line.startswith(b"POST")
        fields = b"Host: x\r\nAuthorization: Bearer %b\r\n" % self._token.encode()
        if posts:
            fields += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        self.protocol.data_received(line + b" HTTP/1.1\r\n" + fields + b"\r\n" + (body if posts else b""))

    async def ask_at_once(self, line: bytes, many: int, edge: Edge) -> list[bytes]:
        """The answers to the same request over so many more connections, with the same session."""
        more = [Client(edge, self._token) for _ in range(many)]
        return await asyncio.gather(*(each.ask(line) for each in more))

    async def ask(self, line: bytes) -> bytes:
        """The answer to a request, as bytes."""
        before = len(self.written)
        self.send(line)
        await eventually_async(lambda: not self.protocol.busy and len(self.written) > before)
        return self.written[before:]


class Process:
    """An API process, in which Ann and Bob are members of an application with one chat. ``by_shortcut`` and
    ``by_route`` are two edges over the same hot routes.
    """

    def __init__(self, way: Way, rate: int) -> None:
        self.way = way
        gate = way.gate_of(rate)
        accounts = Accounts(way.store, way.intake, cast(Any, None), now)
        self.sessions = Sessions(accounts, b"secret" * 8, gate)
        quotas = Quotas(MemoryCounts(), Hourly(10, 10, 10, 10))
        ports = Ports(way.store, way.intake, way.view, cast(Any, None), quotas, now)
        self.routes = Routes(self.sessions, Applications(ports), Chats(ports))
        shortcuts = TripShortcuts(self.sessions, RedisTrip(gate, way.view, way.intake))
        self.by_shortcut = Edge(self.routes, App(), shortcut=lambda *about: shortcut_of(shortcuts, *about))
        self.by_route = Edge(self.routes, App())
        for edge in (self.by_shortcut, self.by_route):
            edge.tick()
        self.ann: User
        self.bob: User

    async def begin(self) -> None:
        accept = self.way.intake.accept
        self.ann = await accept(AddUser("ann", "a@x", "Ann", "hash", 1))
        self.bob = await accept(AddUser("bob", "b@x", "Bob", "hash", 1))
        await accept(AddApplication(CHAT.token, "T", self.ann.id, 2))
        await accept(PutMember(CHAT.token, self.bob.id, Role.MEMBER))
        assert await accept(AddChat(CHAT.token, None, 3)) == 1

    def client(self, user: User, edge: Edge | None = None) -> Client:
        return Client(edge or self.by_shortcut, self.sessions.begin(user).value)

    async def warmed(self, user: User, lines: list[bytes]) -> Client:
        """A client whose requests this process has answered before, so that it remembers what they need."""
        client = self.client(user)
        for line in [*lines, MESSAGES, *lines]:
            assert status(await client.ask(line)) == 200
        self.routes.handled = 0
        return client


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def numbers(*answers: bytes) -> list[int]:
    return [int(re.findall(rb'{"messageNumber":([0-9]+)}', answer)[0]) for answer in answers]


@pytest.fixture(autouse=True)
def date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of different seconds are the same."""
    monkeypatch.setattr("hubbub.http.edge.formatdate", lambda **_: "now")


@pytest.fixture
def rate() -> int:
    return 1000


@pytest.fixture
async def process(mariadb: MariaDb, rabbitmq: RabbitMq, redis: Redis, rate: int) -> AsyncIterator[Process]:
    async with cluster(mariadb, rabbitmq, redis) as way:
        process = Process(way, rate)
        await process.begin()
        yield process


async def test_the_answers_are_the_bytes_of_the_route(process: Process) -> None:
    client, other = await process.warmed(process.ann, ALL), process.client(process.ann, process.by_route)
    for line in (CHATS, MESSAGES, CHATS + b"?limit=10", MESSAGES + b"?limit=10"):
        await client.ask(line)
        process.routes.handled = 0
        answers = [await client.ask(line) for _ in range(3)]
        assert process.routes.handled == 0
        assert answers == [await other.ask(line)] * 3
    process.routes.handled = 0
    posted = [await client.ask(POST) for _ in range(2)]
    assert process.routes.handled == 0
    posted.append(await other.ask(POST))
    first = numbers(posted[0])[0]
    assert numbers(*posted) == [first, first + 1, first + 2]
    assert len({re.sub(rb"[0-9]+}$", b"N}", answer) for answer in posted}) == 1
    process.routes.handled = 0
    assert await client.ask(MESSAGES) == await other.ask(MESSAGES)
    assert process.routes.handled == 1


async def test_a_list_has_what_was_posted_before(process: Process) -> None:
    client, bob = await process.warmed(process.ann, ALL), await process.warmed(process.bob, ALL)
    for at in range(15):
        (number,) = numbers(await bob.ask(POST))
        listed = await client.ask(MESSAGES)
        assert b'[{"messageNumber":%d,' % number in listed, at
        assert listed == await process.client(process.ann, process.by_route).ask(MESSAGES)


@pytest.mark.parametrize("line", ALL)
async def test_an_ended_session_is_refused_at_once(process: Process, line: bytes) -> None:
    client = await process.warmed(process.ann, [line])
    session = await process.sessions.of(None, f"Bearer {client._token}".encode())
    await process.sessions.end(session)
    assert status(await client.ask(line)) == 401
    assert status(await client.ask(MESSAGES)) == 401


@pytest.mark.parametrize("line", ALL)
async def test_a_session_that_another_process_ends_is_refused_at_once(process: Process, line: bytes) -> None:
    client, other = await process.warmed(process.ann, [line]), Process(process.way, 1000)
    session = await other.sessions.of(None, f"Bearer {client._token}".encode())
    await other.sessions.end(session)
    before = len(process.sessions._remembered)
    assert status(await client.ask(line)) == 401
    assert len(process.sessions._remembered) == before - 1


@pytest.mark.parametrize("line", ALL)
async def test_a_removed_member_is_refused_at_once(process: Process, line: bytes) -> None:
    client = await process.warmed(process.bob, [line])
    await process.way.intake.accept(RemoveMember(CHAT.token, process.bob.id))
    assert status(await client.ask(line)) == 404
    await process.way.intake.accept(PutMember(CHAT.token, process.bob.id, Role.ADMIN))
    assert status(await client.ask(line)) == 200


@pytest.mark.parametrize("line", ALL)
async def test_a_stranger_is_refused(process: Process, line: bytes) -> None:
    await process.warmed(process.ann, [line])
    eve = await process.way.intake.accept(AddUser("eve", "e@x", "Eve", "hash", 1))
    client = process.client(eve)
    assert [status(await client.ask(line)) for _ in range(3)] == [404] * 3


class TestRates:
    @pytest.fixture
    def rate(self) -> int:
        return 10

    @pytest.mark.parametrize("line", ALL)
    async def test_too_many_are_refused_as_by_the_route(
        self, process: Process, line: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hubbub.http.connection.LATE_S", 0)
        client = await process.warmed(process.ann, [line])
        await asyncio.sleep(2.1)
        begun = time.monotonic()
        answers = await client.ask_at_once(line, 60, process.by_shortcut)
        most = 20 + 10 * (time.monotonic() - begun) + 1
        assert 20 <= [status(answer) for answer in answers].count(200) <= most
        refused = [answer for answer in answers if status(answer) == 429]
        assert process.routes.handled == 0
        by_route = await client.ask_at_once(line, 60, process.by_route)
        assert without_id(refused[0]) in map(without_id, by_route)

    @pytest.mark.parametrize("line", ALL)
    async def test_a_request_that_its_route_continues_is_counted_once(self, process: Process, line: bytes) -> None:
        client = await process.warmed(process.ann, [line])
        await asyncio.sleep(2.1)
        let_in = 0
        for _ in range(20):
            forget_roles(process)
            let_in += status(await client.ask(line)) == 200
        assert (let_in, process.routes.handled) == (20, 20)

    async def test_refused_posts_take_no_number(self, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hubbub.http.connection.LATE_S", 0)
        client = await process.warmed(process.ann, [POST])
        await asyncio.sleep(2.1)
        answers = [await client.ask(POST) for _ in range(40)]
        told = numbers(*(answer for answer in answers if status(answer) == 200))
        await asyncio.sleep(0.5)
        assert numbers(await client.ask(POST)) == [told[-1] + 1]
        assert told == [*range(told[0], told[-1] + 1)]


def without_id(answer: bytes) -> bytes:
    """The answer without what is another in each."""
    return re.sub(rb"x-request-id: [0-9a-f]+", b"", re.sub(rb"request [0-9a-f]{16}", b"", answer))


def forget_roles(process: Process) -> None:
    """Let the roles that the process remembers be too old."""
    known = process.way.view._applications.get(CHAT.token)
    assert known is not None
    known.roles = {user: (-1000.0, role) for user, (_, role) in known.roles.items()}


async def test_a_post_that_its_route_continues_uses_the_number_that_was_brought(process: Process) -> None:
    client = await process.warmed(process.ann, [POST])
    (before,) = numbers(await client.ask(POST))
    for number in (before + 1, before + 2):
        forget_roles(process)
        assert numbers(await client.ask(POST)) == [number]
    assert process.routes.handled == 2
    await eventually_async(lambda: process.way.publisher.depth == 0)


@pytest.mark.parametrize("line", [CHATS, MESSAGES])
async def test_a_list_is_answered_though_redis_is_lost_under_way(process: Process, line: bytes) -> None:
    client = await process.warmed(process.ann, [POST, line])
    before = len(client.written)
    client.send(line)
    (redis,) = process.way.servers.clients
    lose(redis)
    await eventually_async(lambda: not client.protocol.busy and len(client.written) > before)
    assert status(client.written[before:]) == 200
    assert process.routes.handled == 1


async def test_a_post_is_refused_when_redis_is_lost_under_way_and_gives_its_room_back(process: Process) -> None:
    client = await process.warmed(process.ann, [POST])
    before = len(client.written)
    held = process.way.publisher.depth  # a new cluster's barriers may be under way
    client.send(POST)
    assert process.way.publisher.depth == held + 1
    (redis,) = process.way.servers.clients
    lose(redis)
    await eventually_async(lambda: not client.protocol.busy and len(client.written) > before)
    assert status(client.written[before:]) == 503
    await eventually_async(lambda: process.way.publisher.depth == 0)


async def test_what_another_data_set_answers_is_not_told(process: Process) -> None:
    client = await process.warmed(process.ann, [POST, MESSAGES])
    (redis,) = process.way.servers.clients
    own, redis.data_set = redis.data_set, b"another"
    answer = await client.ask(MESSAGES)
    redis.data_set = own
    assert b"hubbub-lag: queue" in answer
    assert process.routes.handled == 1


async def test_a_client_that_leaves_while_its_trip_is_under_way_harms_no_other(process: Process) -> None:
    client, bob = await process.warmed(process.ann, ALL), await process.warmed(process.bob, ALL)
    client.send(POST)
    cast(Transport, client.protocol.transport).abort()
    assert status(await bob.ask(MESSAGES)) == 200
    await eventually_async(lambda: process.way.publisher.depth == 0)
    assert status(await bob.ask(MESSAGES)) == 200


def lose(redis: RedisClient) -> None:
    """Lose the connection before an answer can come."""
    redis._abort()
