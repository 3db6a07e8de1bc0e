"""A connection answers requests with a known head by their shortcut, as it would without one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Entry
from hubbub.chat.ticket import Ticket
from hubbub.http.connection import Connection
from hubbub.http.edge import Edge
from hubbub.http.hot_routes import HotRoutes
from hubbub.http.reply import PIECE, Reply
from hubbub.http.sessions import Session
from hubbub.http.shortcuts import Later
from tests.conftest import eventually_async
from tests.unit.test_connection import App, Transport, connected, settled

LIST = b"GET /list HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
POSTED = b'{"messageNumber":7}'


@pytest.fixture(autouse=True)
def date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of different seconds are the same."""
    monkeypatch.setattr("hubbub.http.edge.formatdate", lambda **_: "now")


class Routes:
    """Hot routes that answer ``result``; so do the shortcuts, unless they are off."""

    posted = staticmethod(HotRoutes.posted)

    def __init__(self, result: Any, *, shortcuts: bool = True) -> None:
        self.result = result
        self.shortcuts = shortcuts
        self.bodies: list[bytes] = []
        self.handled = 0

    def match(self, _method: bytes, target: bytes) -> Any:
        return self._handle, ChatKey("token", 1), b"", target[1:].decode()

    def shortcut(self, _match: Any, _headers: dict[bytes, bytes]) -> Any:
        return self._answer if self.shortcuts else None

    def _answer(self, body: bytes, _trace: str) -> Any:
        self.bodies.append(body)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def _handle(self, call: Any) -> Any:
        self.handled += 1
        return self._answer(call.body, "")


def edge_with(routes: Routes, **more: Any) -> Edge:
    edge = Edge(cast(Any, routes), App(), shortcut=routes.shortcut, **more)
    edge.tick()
    return edge


async def answered(routes: Routes, data: bytes, **more: Any) -> tuple[bytes, Connection, Edge]:
    """Send the request twice, so that its head is known. Return the second answer."""
    edge = edge_with(routes, **more)
    protocol, transport = connected(App(), edge)
    protocol.data_received(data)
    await eventually_async(lambda: not protocol.busy and transport.written != b"")
    first = len(transport.written)
    protocol.data_received(data)
    await eventually_async(lambda: not protocol.busy and len(transport.written) > first)
    return bytes(transport.written[first:]), protocol, edge


async def posting() -> tuple[Routes, Ticket, Connection, Transport, int]:
    """A post with a known head is on its way to disk; the last of it all is how many bytes were written before it."""
    routes = Routes(resolved(6))
    _, protocol, _ = await answered(routes, POST)
    transport = cast(Transport, protocol.transport)
    before = len(transport.written)
    routes.result = ticket = Ticket(None)
    protocol.data_received(POST)
    return routes, ticket, protocol, transport, before


def resolved(outcome: Any) -> Ticket:
    ticket = Ticket(None)
    ticket.resolve(outcome)
    return ticket


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (LIST, Reply(200, b"[1]", headers=b"link: x\r\n")),
        (LIST, Reply(200, b"x" * (PIECE + 1))),
        (LIST, RateLimited("Slow down.", limit=1, retry_after=1)),
        (POST, resolved(7)),
        (POST, resolved(Unavailable("Not now."))),
        (POST, resolved(RateLimited("Slow down.", limit=1, retry_after=1))),
        (POST, Unavailable("The write queue is full.")),
    ],
)
async def test_the_answer_is_the_same_as_without_a_shortcut(data: bytes, result: Any) -> None:
    with_shortcut, without = Routes(result), Routes(result, shortcuts=False)
    assert (await answered(with_shortcut, data))[0] == (await answered(without, data))[0]
    assert (with_shortcut.handled, without.handled) == (0, 2)
    assert with_shortcut.bodies == without.bodies


class TooLittle(Routes):
    """The shortcuts find too little in memory."""

    asked = 0

    def _answer(self, body: bytes, _trace: str) -> Any:
        self.asked += 1

    async def _handle(self, _call: Any) -> Any:
        return self.result


class Late(Routes):
    """Hot routes whose shortcuts answer when ``come`` is called. ``entered`` has what the route was given."""

    def __init__(self, result: Any, *, shortcuts: bool = True) -> None:
        super().__init__(result, shortcuts=shortcuts)
        self.asked: list[Later] = []
        self.entered: list[Entry | None] = []

    def _answer(self, body: bytes, _trace: str) -> Any:
        later = Later(SESSION, self._made)
        self.asked.append(later)
        return later

    def _made(self, user: User, brought: object) -> Any:
        assert user is SESSION.user
        return super()._answer(b"", "") if brought == "enough" else None

    async def _handle(self, call: Any) -> Any:
        self.handled += 1
        self.entered.append(call.entered)
        return super()._answer(call.body, "")

    async def come(self, entered: Entry | Exception) -> None:
        await eventually_async(lambda: bool(self.asked))
        self.asked.pop().came(entered)


SESSION = Session("s", User(1, "ann", "a@x", "A", 1), "", 0, 0.0, True, "mark")
ENOUGH = Entry("mark", "enough")


async def answered_late(routes: Late, data: bytes, entered: Entry | Exception) -> bytes:
    """As ``answered``, when the gate says this of both requests."""
    asking = asyncio.create_task(answered(routes, data))
    await routes.come(entered)
    await routes.come(entered)
    return (await asking)[0]


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (LIST, Reply(200, b"[1]", headers=b"link: x\r\n")),
        (LIST, Reply(200, b"x" * (PIECE + 1))),
        (POST, resolved(7)),
        (POST, resolved(Unavailable("Not now."))),
        (POST, Unavailable("The write queue is full.")),
    ],
)
async def test_an_answer_that_comes_later_is_the_same(data: bytes, result: Any) -> None:
    late, without = Late(result), Routes(result, shortcuts=False)
    assert await answered_late(late, data, ENOUGH) == (await answered(without, data))[0]
    assert late.handled == 0


async def test_what_the_gate_refuses_is_refused() -> None:
    refusal = RateLimited("Slow down.", limit=1, retry_after=1)
    late, without = Late(Reply(200, b"[1]")), Routes(refusal, shortcuts=False)
    assert await answered_late(late, LIST, refusal) == (await answered(without, LIST))[0]
    assert late.handled == 0


@pytest.mark.parametrize(
    "entered", [Entry("mark", "too little"), Entry("another mark", "enough"), Entry("", "enough"), Entry("mark")]
)
async def test_a_route_continues_with_the_entry_where_the_shortcut_has_no_answer(entered: Entry) -> None:
    late = Late(Reply(200, b"[2]"))
    assert (await answered_late(late, LIST, entered)).endswith(b"[2]")
    assert late.entered == [entered, entered]


async def test_a_session_without_a_mark_never_lives() -> None:
    assert not SESSION._replace(mark="").lives("")


async def test_what_comes_behind_an_answer_that_is_late_waits() -> None:
    late = Late(Reply(200, b"[1]"))
    await answered_late(late, LIST, ENOUGH)
    protocol, transport = connected(App(), edge_with(late))
    protocol.data_received(LIST + LIST)
    await settled()
    assert len(late.asked) == 1
    await late.come(ENOUGH)
    await settled()
    assert bytes(transport.written).count(b"HTTP/1.1 200") == 1
    await late.come(ENOUGH)
    await settled()
    assert bytes(transport.written).count(b"HTTP/1.1 200") == 2


async def test_what_a_shortcut_has_no_answer_for_is_handled_by_the_route() -> None:
    assert (await answered(TooLittle(Reply(200, b"[2]")), LIST))[0].endswith(b"[2]")


@pytest.mark.parametrize(("data", "result"), [(LIST, Reply(200, b"[1]")), (POST, resolved(7))])
async def test_answers_are_measured_and_logged(data: bytes, result: Any) -> None:
    logged: list[Any] = []

    class Access:
        def add(self, *about: Any) -> None:
            logged.append(about[:5])

    _, _, edge = await answered(Routes(result), data, access=Access())
    method, target, _ = data.split(b" ", 2)
    assert sum(edge.requests.series[target[1:].decode(), 200][:-1]) == 2
    assert [each[:3] for each in logged] == [("192.0.2.1", method, target)] * 2
    assert [(dict(each[3])[b"host"], each[4]) for each in logged] == [(b"x", 200)] * 2


async def test_an_unexpected_error_is_a_500_and_the_connection_goes_on() -> None:
    routes = Routes(ZeroDivisionError())
    answer, protocol, _ = await answered(routes, LIST)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert not protocol.busy


async def test_a_post_is_answered_when_its_ticket_is_resolved_and_what_comes_behind_it_waits() -> None:
    routes, ticket, protocol, transport, before = await posting()
    protocol.data_received(POST)
    await settled()
    assert protocol.busy
    assert len(transport.written) == before
    assert len(routes.bodies) == 3
    routes.result = resolved(8)
    ticket.resolve(7)
    await settled()
    assert bytes(transport.written[before:]).count(b'{"messageNumber":7}') == 1
    assert bytes(transport.written).endswith(b'{"messageNumber":8}')


@pytest.mark.parametrize("what", ["stopping", "ended"])
async def test_the_last_answer_of_a_connection_says_so(what: str) -> None:
    """Also if it became the last while its message was on its way to disk."""
    _, ticket, protocol, transport, _ = await posting()
    if what == "stopping":
        protocol.edge.stop()
    else:
        protocol.ended = True
    ticket.resolve(7)
    await settled()
    answer = bytes(transport.written).rpartition(b"HTTP/1.1 200 ")[2]
    assert b"connection: close\r\n" in answer
    assert answer.endswith(POSTED)
    assert transport.closed


async def test_a_client_that_left_is_not_written_to() -> None:
    _, ticket, _, transport, before = await posting()
    transport.abort()
    await asyncio.sleep(0)
    ticket.resolve(7)
    await settled()
    assert len(transport.written) == before


async def test_an_answer_that_cannot_be_written_ends_its_connection_and_holds_up_no_other() -> None:
    edge = edge_with(Routes(None))
    (failing, transport), (other, _) = connected(App(), edge), connected(App(), edge)
    written: list[int] = []
    edge.write_soon(failing, lambda: written.append(1 // 0))
    edge.write_soon(other, written.append, 2)
    await settled()
    assert written == [2]
    assert transport.aborted
    assert len(edge.connections) == 1


async def test_an_answer_that_is_made_is_written_before_tls_ends_both_ways() -> None:
    routes = Routes(Reply(200, b"[1]"))
    _, protocol, _ = await answered(routes, LIST)
    transport = cast(Transport, protocol.transport)
    before = len(transport.written)
    protocol.data_received(LIST)
    assert not protocol.eof_received()  # this transport can't be half closed
    assert bytes(transport.written[before:]).endswith(b"[1]")


async def test_a_shortcut_that_finds_too_little_is_asked_once() -> None:
    routes = TooLittle(Reply(200, b"[2]"))
    await answered(routes, LIST)
    assert routes.asked == 2
