"""Every parser of ours, fed at random: it gives a value or the one error that it names, and never anything else."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from hubbub.chat import search
from hubbub.chat.errors import ChatError
from hubbub.chat.model import Message
from hubbub.http import fields, schemas
from hubbub.http.connection import Connection, Edge
from hubbub.http.hot import HotRoutes
from hubbub.http.media import must_be_json
from hubbub.http.origin import must_be_own_page
from hubbub.http.routing import application
from hubbub.http.sessions import Sessions
from hubbub.loadtest import mix, profile, requirement, wire
from hubbub.queues import rabbitmq

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
    found = search.rank(query, [Message(at + 1, 1, "A", body, 0) for at, body in enumerate(bodies)])
    assert {message.number for message in found} <= set(range(1, len(bodies) + 1))
    if q.isalpha() and q.isascii():
        assert [each.number for each in search.rank(query, [Message(1, 1, "A", q, 0)])] == [1]


@given(texts, texts)
def test_what_is_found_has_the_grams_that_an_index_is_asked_for(q: str, body: str) -> None:
    query = search.parse(q)
    assume(query.terms)
    if search.rank(query, [Message(1, 1, "A", body, 0)]):
        held = search.grams(search.spaced(body))
        for term in query.terms:
            assert any(way <= held for way in (term.sure, *term.typos)), (term, body)


@given(anything)
def test_what_the_broker_delivers(body: bytes) -> None:
    with suppress(msgspec.DecodeError, msgspec.ValidationError):
        rabbitmq.decode(body)


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
    with suppress(wire.BadResponse):
        wire.parse(buffer)


class Pipe:
    """A transport that keeps what is written, and calls nobody back."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

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

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /api/v1/applications/t/chats/1/messages HTTP/1.1\r\n",
        b"GET /api/v1/applications/t/chats HTTP/1.1\r\n",
        b"HEAD /healthz HTTP/1.0\r\n",
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
        b"0\r\n\r\n",
        b"ffffffff\r\n",
        b"\x00",
        b"\n",
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=20), max_size=12).map(b"".join)


def _statuses(answers: bytes) -> list[bytes]:
    """Of all requests that could be read. Whether what can't is told so depends on when it comes: the answer before it
    may close the connection already.
    """
    found = re.findall(rb"HTTP/1.1 (\d{3}) ", answers)
    return found[:-1] if found[-1:] and found[-1] in (b"400", b"413", b"431") else found


async def _answers(pieces: list[bytes]) -> bytes:
    sessions = Sessions(cast(Any, None), b"x" * 32, cast(Any, None))
    edge = Edge(HotRoutes(sessions, cast(Any, None)), application([]))
    edge.date = b"date: now\r\n"
    connection, pipe = Connection(edge, ServerState()), Pipe()
    connection.connection_made(cast(Any, pipe))
    for piece in pieces:
        connection.data_received(piece)
        while edge.tasks or (connection.waiting and not connection.busy and not pipe.closed):
            await asyncio.sleep(0)
    connection.connection_lost(None)
    return pipe.written


@given(STREAMS, st.data())
async def test_a_stream_of_bytes_means_the_same_however_it_is_cut(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, cut = _statuses(await _answers([stream])), _statuses(await _answers(pieces))
    assert cut == whole
    assert b"500" not in whole
