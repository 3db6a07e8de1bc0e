"""Which heads of requests are remembered."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import pytest

from hubbub.chat.model import ChatKey
from hubbub.http import heads
from hubbub.http.heads import Heads, head_of
from hubbub.http.hot_routes import Match

MATCH: Match = (cast(Any, None), ChatKey("t", 1), b"", "listMessages")
PLAIN = [(b"host", b"x"), (b"content-length", b"3")]


def raw(headers: list[tuple[bytes, bytes]], method: bytes = b"POST") -> bytes:
    return method + b" /x HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"


def test_a_plain_head_is_remembered() -> None:
    known = Heads()
    known.learn(raw(PLAIN), b"POST", PLAIN, MATCH)
    head = known.get(raw(PLAIN))
    assert head is not None
    assert (head.length, head.headers, head.match) == (3, dict(PLAIN), MATCH)
    assert known.get(raw([*PLAIN, (b"cookie", b"another")])) is None


@pytest.mark.parametrize(
    "headers",
    [
        [(b"transfer-encoding", b"chunked")],
        [(b"expect", b"100-continue")],
        [(b"upgrade", b"x")],
        [(b"connection", b"close")],
        [(b"content-length", b"3"), (b"content-length", b"3")],
        [(b"idempotency-key", b"k")],
        [(b"x", b"y" * 5000)],
    ],
)
def test_other_heads_are_not_remembered(headers: list[tuple[bytes, bytes]]) -> None:
    known = Heads()
    known.learn(raw(headers), b"POST", headers, MATCH)
    assert known.get(raw(headers)) is None


def test_bytes_that_the_parser_read_differently_are_not_remembered() -> None:
    known = Heads()
    for bytes_ in (b"\r\n" + raw(PLAIN), raw([*PLAIN, (b"more", b"x")]), raw(PLAIN).replace(b"\r\nhost", b"\nhost")):
        known.learn(bytes_, b"POST", PLAIN, MATCH)
        assert known.get(bytes_) is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_MOST_BYTES", 20_000)
    known = Heads()
    sent = [raw([(b"x", b"%d" % at)]) for at in range(100)]
    for at, each in enumerate(sent):
        known.learn(each, b"POST", [(b"x", b"%d" % at)], MATCH)
    assert known.get(sent[-1]) is not None
    assert sum(known.get(each) is not None for each in sent) < 25


@pytest.mark.parametrize(("count", "length"), [(1, 1), (10, 80), (200, 1), (1, 3500)])
def test_the_counted_bytes_are_those_in_memory(monkeypatch: pytest.MonkeyPatch, count: int, length: int) -> None:
    monkeypatch.setattr(heads, "_MOST_BYTES", 200_000)
    tracemalloc.start()
    try:
        before, most, known = tracemalloc.get_traced_memory()[0], 0, Heads()
        for at in range(100):
            headers = [(b"a%d" % each, b"%d" % (at * 1000 + each) + b"x" * length) for each in range(count)]
            known.learn(raw(headers), b"POST", headers, MATCH)
            del headers
            most = max(most, tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert 20_000 < most < 220_000


def test_a_remembered_head_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_MOST_BYTES", 20_000)
    known = Heads()
    known.learn(raw([(b"x", b"first")]), b"POST", [(b"x", b"first")], MATCH)
    for _ in range(1000):
        known.learn(raw(PLAIN), b"POST", PLAIN, MATCH)
    assert known.get(raw([(b"x", b"first")])) is not None


def test_a_head_ends_with_a_blank_line() -> None:
    assert head_of(raw(PLAIN) + b"abc\r\n\r\n") == raw(PLAIN)
    assert head_of(b"GET / HTTP/1.1\r\nhost: x\r\n") == b""
