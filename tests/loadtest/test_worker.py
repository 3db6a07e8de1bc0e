"""One worker on a real socket, whose other end is the test's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.loadtest import sockets
from hubbub.loadtest.mix import ROUTES, parse_mix, parse_size
from hubbub.loadtest.plan import Plan, Schedule
from hubbub.loadtest.profile import steady
from hubbub.loadtest.runner import Runner
from hubbub.loadtest.scenario import Scenario, Texts, VirtualUser, Workload
from hubbub.loadtest.summary import SecondSummary
from hubbub.loadtest.worker import Worker, clock


class Bench:
    """A worker that sends and reads in turn, and the service's end of its connection."""

    def __init__(self, mix: str = "send=1,messages=1", size: str = "20") -> None:
        self.told: list[SecondSummary] = []
        self.runner = Runner("http://h", self.told.append)
        workload = Workload(parse_mix(mix), parse_size(size), 0.0, 1, "r", note=0)
        user = VirtualUser("auth_token=t", "T", (1,))
        self.worker = Worker(self.runner, 0, Scenario("http://h", user, workload, Texts(workload), 0))
        self.runner.workers = [self.worker]
        self.service, self._own = socket.socketpair()
        self.service.setblocking(False)
        self._own.setblocking(False)

        async def connect() -> socket.socket:
            return self._own

        self.runner.connect = connect  # type: ignore[method-assign]

    async def begin(self) -> None:
        await self.worker.connect()
        mix = self.worker._scenario._texts
        plan = Plan(bool(mix.writes), bool(mix.reads), 1, steady(10))
        self.runner._begin(Schedule(plan, start=clock() - 100))  # all is due

    def ask(self) -> bytes:
        """Send the next request; return it as it came."""
        self.worker.prepare()
        self.runner._transmit([self.worker])
        return self.service.recv(65536)

    def answer(self, *parts: bytes) -> None:
        for part in parts:
            if self.worker.connected:
                self.service.send(part)
                self.runner._receive(0)

    def counted(self) -> dict[str, tuple[int, dict[str, int]]]:
        """Return the number of right answers and the failures, by route."""
        second = self.runner.summary.take(0, waiting=0, cpu_s=0, span_s=1)
        return {
            ROUTES[route]: (len(answers.latencies) // 4, answers.failures) for route, answers in second.routes.items()
        }

    async def close(self) -> None:
        await self.runner.close()
        self.service.close()
        self._own.close()


@contextlib.asynccontextmanager
async def bench(mix: str = "send=1,messages=1", size: str = "20") -> AsyncIterator[Bench]:
    each = Bench(mix, size)
    await each.begin()
    try:
        yield each
    finally:
        await each.close()


def response(body: bytes, *, status: bytes = b"200 OK", head: bytes = b"Date: Monday\r\n", length: int = 0) -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, head, length or len(body), body)


LIST = b'[{"messageNumber":15}]'
# Answers to a request for a list, after the usual one, which is known again: each is as long.
ALIKE = {
    "the same": response(LIST),
    "another date": response(LIST, head=b"Date: Sunday\r\n"),
    "a lower number": response(b'[{"messageNumber":11}]'),
    "another body": response(b'{"messageNumber": 15 }'),
    "another status": response(LIST, status=b"503 NO"),
    "it closes": response(b"[]".ljust(len(LIST) - 5), head=b"Connection: close\r\n"),
    "too long": response(LIST, length=23),
    "too short": response(LIST, length=21),
    "no length": response(LIST).replace(b"Content-Length", b"Content-Lengtx"),
    "no head": b"HTTP/1.1 200 OK" + b"x" * (len(response(LIST)) - 15),
}


def outcome(first: Bench, answer: bytes, cut: int) -> tuple[object, ...]:
    parts = (answer[:cut], answer[cut:]) if 0 < cut < len(answer) else (answer,)
    first.ask()
    first.answer(*parts)
    return first.counted(), first.worker.connected, first.worker.busy, first.worker._buffer


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(ALIKE)), st.integers(0, 90), st.data())
def test_an_answer_like_a_known_one_is_judged_as_if_it_were_parsed(kind: str, cut: int, data: st.DataObject) -> None:
    answer = bytearray(ALIKE[kind])
    assert len(answer) == len(response(LIST))
    for _ in range(data.draw(st.integers(0, 2))):
        answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))

    async def compare() -> None:
        async with bench("messages=1") as experienced, bench("messages=1") as fresh:
            for each in (experienced, fresh):
                each.worker._scenario._chat.newest = 12
            experienced.ask()
            experienced.answer(response(LIST))
            assert experienced.runner.heads.known
            assert experienced.counted() == {"messages": (1, {})}
            assert outcome(experienced, bytes(answer), cut) == outcome(fresh, bytes(answer), cut)

    asyncio.run(compare())


async def test_what_is_wrong_with_an_answer_of_a_known_length_is_seen() -> None:
    for kind, expected in {
        "the same": (1, {}),
        "another date": (1, {}),
        "a lower number": (0, {"a list without an acknowledged message": 1}),
        "another body": (0, {"another body than was asked for": 1}),
        "another status": (0, {"status 503": 1}),
        "no length": (0, {"bad response: neither content-length nor chunks": 1}),
    }.items():
        async with bench("messages=1") as each:
            each.worker._scenario._chat.newest = 12
            each.ask()
            each.answer(response(LIST))
            each.counted()
            each.ask()
            each.answer(ALIKE[kind])
            assert each.counted() == {"messages": expected}, kind


async def test_a_usual_answer_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as each:
        for number in range(10, 14):
            assert each.ask().startswith((b"POST", b"GET"))
            if number == 12:
                monkeypatch.setattr("hubbub.loadtest.worker.parse", None)
            listed = each.worker._scenario.route != 0
            each.answer(response((b'[{"messageNumber":%d}]' if listed else b'{"messageNumber":%d}') % number))
        assert each.counted() == {"send": (2, {}), "messages": (2, {})}


async def test_a_request_that_does_not_fit_is_sent_in_pieces() -> None:
    async with bench("send=1", "10000") as each:
        each._own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        came = each.ask()
        assert b"Content-Length: 10011\r\n" in came
        assert len(came) < 10_011
        for _ in range(100):
            each.runner._receive(0)
            with contextlib.suppress(BlockingIOError):
                came += each.service.recv(65536)
        assert came.endswith(b'"}')
        assert len(came.split(b"\r\n\r\n", 1)[1]) == 10_011
        each.answer(response(b'{"messageNumber":1}'))
        assert each.counted() == {"send": (1, {})}


async def test_a_connection_that_ends_fails_the_request_under_way_once() -> None:
    async with bench() as each:
        each.ask()
        each.service.close()
        each.runner._receive(0)
        assert list(each.counted().values()) == [(0, {"connection lost": 1})]
        assert not each.worker.connected
        assert len(each.runner._reconnecting) == 1


async def test_an_answer_to_nobody_is_dropped() -> None:
    async with bench("messages=1") as each:
        each.answer(response(LIST))
        assert each.counted() == {}
        each.ask()
        each.answer(response(LIST), response(LIST))
        assert each.counted() == {"messages": (1, {})}
        assert each.worker.connected


async def test_a_part_that_looks_like_a_whole_answer_is_a_part() -> None:
    async with bench("messages=1") as each:
        each.ask()
        each.answer(response(LIST))
        each.counted()
        each.ask()
        each.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(response(LIST)), response(LIST))
        assert each.counted() == {"messages": (0, {"another body than was asked for": 1})}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", str(tmp_path / "only.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + (tmp_path / "only.pem").read_bytes())
    return file


async def test_with_tls_nothing_that_was_decrypted_is_left(certificate: Path) -> None:
    """Epoll sees only what was not decrypted yet, so a part that is left would wait for the next answer."""
    sent = b"x" * 16_000

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    trusting = sockets.secure()
    trusting.load_verify_locations(certificate)
    connection = await sockets.connect("localhost", server.sockets[0].getsockname()[1], trusting)
    try:
        with pytest.raises(sockets.NOT_NOW):
            connection.recv(100)
        for _ in range(200):
            await asyncio.sleep(0.01)
            with contextlib.suppress(*sockets.NOT_NOW):
                assert connection.recv(100) == sent
                return
        pytest.fail("nothing came")
    finally:
        connection.close()
        server.close()
