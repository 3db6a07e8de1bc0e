"""Ranking takes a bounded amount of work, whatever the texts and the query are."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from hubbub.chat.model import Message
from hubbub.chat.ranking import SLICE, Ranking
from hubbub.chat.search import Query, parse, spaced

TEXTS = {
    "short words": "ab " * 3333,
    "words": "abcd efgh ijkl " * 666,
    "one word": "a" * 10_000,
    "almost": ("a" * 49 + "b") * 200,
    "ideographs": "東" * 10_000,
    "letters of two bytes": "приве " * 1666,
    "what becomes many": "\ufdfa" * 10_000,
    "marks in disorder": "a" + "\u0301" * 5000 + "\u0316" * 4999,
    "marks of others in disorder": "a" + "\u0307" * 5000 + "\u0591" * 4999,
}
QUERIES = {
    "many terms": " ".join(f"abcdefg{number}" for number in range(100)),
    "short terms": " ".join(chr(97 + at % 26) + chr(97 + at // 26) + "abcde" for at in range(125)),
    "repeated letters": " ".join("a" * (40 + at) + "b" + "a" * 40 for at in range(12)),
    "one long": "ab" * 500,
    "parts": "ab a abc bcd efg",
}


@pytest.fixture(params=QUERIES)
def query(request: pytest.FixtureRequest) -> Query:
    return parse(QUERIES[request.param][:1000])


@pytest.mark.parametrize("text", TEXTS)
def test_a_query_takes_hardly_more_work_than_it_may(query: Query, text: str) -> None:
    """Compare the CPU time with that of folding plain text, which a step stands for. Ten times as much is allowed."""
    messages = [Message(number, 1, "ref", "A", TEXTS[text], 0) for number in range(200)]
    plain = "plain text " * 900
    step = cpu(lambda: [spaced(plain) for _ in range(50)]) / (50 * len(plain))
    steps = 2 * SLICE
    ranking = Ranking(query, steps)
    longest = whole = 0.0
    while not ranking.over and ranking.looked_at < len(messages):
        rest = messages[ranking.looked_at :]
        took = cpu(partial(ranking.look, rest))
        longest, whole = max(longest, took), whole + took
    one_text = 300_000
    assert longest < 10 * step * (SLICE + one_text)
    assert whole < 10 * step * (steps + one_text)


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this thread."""
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def test_a_slice_ends_after_some_texts_and_all_work_after_a_few_more() -> None:
    messages = [Message(number, 1, "ref", "A", "plain text " * 900, 0) for number in range(100)]
    ranking = Ranking(parse("plain"))
    assert 5 <= ranking.look(messages) <= SLICE // 9900 + 1
    assert not ranking.over
    short = Ranking(parse("plain"), SLICE // 10)
    assert 1 <= short.look(messages) <= SLICE // 10 // 9900 + 1
    assert short.truncated
    assert short.look(messages) == 0


def test_ranking_that_is_ended_stops_at_the_next_message() -> None:
    ranking = Ranking(parse("plain"))
    ranking.end()
    assert ranking.look([Message(1, 1, "ref", "A", "plain", 0)]) == 0
    assert ranking.truncated
