"""Random input to every parser of Hubbub gives a value or the parser's own error, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hubbub.chat import search
from hubbub.chat.errors import ChatError
from hubbub.chat.model import Message
from hubbub.chat.ranking import Ranking
from hubbub.cluster import protocol
from hubbub.http import fields, schemas
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.connection import Connection
from hubbub.http.edge import Edge
from hubbub.http.hot_routes import HotRoutes
from hubbub.http.media import must_be_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.routing import application
from hubbub.http.sessions import Sessions
from hubbub.loadtest import http_protocol, mix, profile, requirement

anything = st.binary(max_size=200)
texts = st.text(max_size=200)
KINDS = [schemas.Registration, schemas.NewMessage, schemas.NumberedMessage, schemas.NewMember, schemas.Title]


@given(
    st.sampled_from(KINDS),
    anything | st.recursive(st.none() | st.integers() | texts, st.lists).map(msgspec.json.encode),
)
def test_bodies(kind: type[msgspec.Struct], body: bytes) -> None:
    with suppress(ChatError):
        fields.fields(kind, body)


@given(st.sampled_from([schemas.Paging, schemas.MessagePaging, schemas.Search]), anything)
def test_queries(kind: type[msgspec.Struct], text: bytes) -> None:
    with suppress(ChatError):
        fields.query(kind, text)


@given(texts)
def test_numbers(text: str) -> None:
    value = fields.number(text)
    assert value is None or int(text) == value > 0


@given(anything, st.dictionaries(st.sampled_from([b"origin", b"host", b"sec-fetch-site"]), anything))
def test_headers(value: bytes, headers: dict[bytes, bytes]) -> None:
    for check in (lambda: must_be_json(value, b"x"), lambda: must_be_own_page(headers)):
        with suppress(ChatError):
            check()


@given(anything, anything | st.binary(max_size=60).map(lambda token: b"auth_token=" + token))
async def test_credentials(authorization: bytes, cookie: bytes) -> None:
    sessions = Sessions(cast(Any, None), b"x" * 32, cast(Any, None))
    for pair in ((authorization, None), (None, cookie), (b"Bearer " + authorization, cookie)):
        with pytest.raises(ChatError):
            await sessions.of(cookie=pair[1], authorization=pair[0])


@given(texts, st.lists(texts, max_size=5))
def test_searches(q: str, bodies: list[str]) -> None:
    query = search.parse(q)
    assume(query.terms)
    assert set(found_in(query, bodies)) <= set(range(1, len(bodies) + 1))
    if q.isalpha() and q.isascii():
        assert found_in(query, [q]) == [1]


def found_in(query: search.Query, bodies: list[str]) -> list[int]:
    ranking = Ranking(query)
    ranking.look([Message(at, 1, "ref", "A", body, 0) for at, body in enumerate(bodies, 1)])
    return ranking.found


@given(texts, texts)
def test_a_match_has_the_grams_that_an_index_is_asked_for(q: str, body: str) -> None:
    query = search.parse(q)
    assume(query.terms)
    if found_in(query, [body]):
        held = search.grams(search.spaced(body))
        for term in query.terms:
            assert any(way <= held for way in (term.sure, *term.typos)), (term, body)


@example(b"\x93\xa9\x00\x00\x00\x00\x00\x00\x00\x00\x80")  # a name that is not UTF-8
@example(b"\x94\xa1a\x01" + b"\x91" * 100_000)
@given(anything)
def test_what_the_broker_delivers(body: bytes) -> None:
    with suppress(protocol.Unreadable):
        protocol.decode(body)


@given(texts)
def test_the_load_testers_options(text: str) -> None:
    for parse, error in (
        (profile.parse_stages, profile.BadStages),
        (mix.parse_mix, mix.BadMix),
        (mix.parse_size, mix.BadSize),
        (requirement.Requirement, requirement.BadRequirement),
    ):
        with suppress(error):
            parse(text)


@given(anything | anything.map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest))
def test_the_load_testers_answers(buffer: bytes) -> None:
    with suppress(http_protocol.BadResponse):
        http_protocol.parse(buffer)


class Pipe:
    """A transport that records what is written, and never calls its protocol."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.reading_paused = False

    def write(self, data: bytes) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> object:
        return None

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /api/v1/applications/t/chats/1/messages HTTP/1.1\r\n",
        b"GET /api/v1/applications/t/chats HTTP/1.1\r\n",
        b"HEAD /healthz HTTP/1.0\r\n",
        b"GET http://y/ HTTP/1.1\r\n",
        b"Host: x\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"Cookie: auth_token=a.b.c\r\n",
        b"\r\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"3;a=b\r\nabc\r\n",
        b"0\r\n\r\n",
        b"0\r\nCookie: a\r\n\r\n",
        b"ffffffff\r\n",
        b"\x00",
        b"\n",
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=20), max_size=12).map(b"".join)


def _edge() -> Edge:
    sessions = Sessions(cast(Any, None), b"x" * 32, cast(Any, None))
    edge = Edge(HotRoutes(sessions, cast(Any, None), cast(Any, None)), application([], AnonymousRate()))
    edge.date = b"date: now\r\n"
    return edge


async def _answers(edge: Edge, pieces: list[bytes], busy: Iterable[bool] = itertools.repeat(False)) -> bytes:
    """Send the pieces on a new connection and return the answers. When a ``busy`` piece comes, the event loop has no
    time left in this turn.
    """
    connection, pipe = Connection(edge), Pipe()
    connection.connection_made(cast(Any, pipe))
    for piece, is_busy in zip(pieces, busy, strict=False):
        if is_busy:
            edge.turns.spend(1)
        connection.data_received(piece)
        while edge.tasks or ((connection.busy or pipe.reading_paused) and not pipe.closed):
            await asyncio.sleep(0)
    connection.connection_lost(None)
    return pipe.written


@given(STREAMS, st.data())
async def test_a_stream_of_bytes_means_the_same_however_it_is_cut_and_waits(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True) if low < high]
    whole = await _answers(_edge(), [stream])
    busy = data.draw(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))
    edge = _edge()
    assert await _answers(edge, pieces, busy) == whole
    assert (edge._arriving.used, edge._not_taken.used) == (0, 0)
    assert b"HTTP/1.1 500 " not in whole


_FIRST_LINES = [
    b"GET /api/v1/applications/t/chats HTTP/1.",
    b"POST /api/v1/applications/t/chats/1/messages HTTP/1.",
]
_LINES = [
    b"Host: x\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"content-length: 03\r\n",
    b"Content-Length: 4\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Upgrade: x\r\n",
    b"Expect: 100-continue\r\n",
    b"Cookie: auth_token=a\r\n",
    b"Folded: a\r\n b\r\n",
    b"Bare: a\n",
]
_BODIES = [b"", b"abc", b"abcd", b"3\r\nabc\r\n0\r\n\r\n"]


@pytest.mark.parametrize("first", _FIRST_LINES)
@pytest.mark.parametrize(
    ("before", "version", "end"),
    [
        (b"", b"1", b"\r\n"),
        (b"", b"0", b"\r\n"),
        (b"", b"1", b"\n"),
        (b"\r\n", b"1", b"\r\n"),
        (b"\n", b"1", b"\r\n"),
        (b"\r", b"1", b"\r\n"),
    ],
)
async def test_a_head_that_was_seen_before_means_the_same_again(
    first: bytes, before: bytes, version: bytes, end: bytes
) -> None:
    edge = _edge()
    for lines in [(), *itertools.product(_LINES, repeat=1), *itertools.product(_LINES, repeat=2)]:
        head = before + first + version + b"\r\n" + b"".join(lines) + end
        for body in _BODIES:
            await _answers(edge, [head + body])
        for body in _BODIES:
            for pieces in ([head + body], [head + body, head + body], [head + body + head + body]):
                assert await _answers(edge, pieces) == await _answers(_edge(), pieces), pieces
