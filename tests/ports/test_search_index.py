"""Every index names, at the least, the messages that match."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey, Message
from hubbub.chat.ports import Document, SearchIndex
from hubbub.chat.search import CANDIDATES, fold, parse, rank, spaced
from hubbub.loadtest.servers import SearchServer
from hubbub.search.elastic import ElasticIndex, connect
from hubbub.search.sqlite import SqliteIndex

_chats = itertools.count(1)
WORDS = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "ab",
    "a",
    "日本語",
    "🎉",
    "Crème",
    "naïveté",
    "x1",
    "2026",
)


class Filled:
    """An index, and how documents come into it and are there to be found when ``add`` returns."""

    def __init__(self, index: SearchIndex, add: Callable[[Sequence[Document]], None]) -> None:
        self.index = index
        self.add = add


@pytest.fixture(params=["sqlite", "opensearch", "elasticsearch"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filled]:
    if request.param == "sqlite":
        index = SqliteIndex(tmp_path)
        file = index.start_anew()
        file.add([], 0)
        index.adopt(file)
        yield Filled(index, file.add)
        index.close()
    else:
        server: SearchServer = request.getfixturevalue(request.param)
        request_ = connect(server.url)
        elastic = ElasticIndex(request_)

        def add(documents: Sequence[Document]) -> None:
            elastic.add(documents)
            request_("POST", "/_refresh", None, 30.0)

        add([])
        yield Filled(elastic, add)


def new_chat() -> ChatKey:
    return ChatKey("token-of-search", next(_chats))


def documents(chat: ChatKey, bodies: Sequence[str]) -> list[Document]:
    return [Document(chat, number, body, 1) for number, body in enumerate(bodies, 1)]


def matching(q: str, bodies: Sequence[str]) -> dict[int, bool]:
    """The numbers that match, and whether without a typo."""
    messages = [Message(number, 1, "A", body, 0, None) for number, body in enumerate(bodies, 1)]
    query = parse(q)
    plain = query._replace(terms=tuple(term._replace(typos=()) for term in query.terms))
    exact = {message.number for message in rank(plain, messages)}
    return {message.number: message.number in exact for message in rank(query, messages)}


async def test_all_that_matches_is_named(filled: Filled) -> None:
    rng = random.Random(5)
    chat = new_chat()
    bodies = [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(300)]
    filled.add(documents(chat, bodies))
    for _ in range(60):
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 2))]
        cut = [word[rng.randint(0, 1) :][: rng.randint(2, 6)] or word for word in words]
        q = " ".join(cut if rng.random() < 0.5 else words)
        if not parse(q).terms:
            continue
        wanted = matching(q, bodies)
        found = await filled.index.candidates(chat, parse(q), typos=False)
        assert {number for number, exact in wanted.items() if exact} <= set(found), q
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("word", ["performance", "message", "hello", "kubernetes", "chats"])
async def test_one_typo_anywhere_is_named(filled: Filled, word: str) -> None:
    chat = new_chat()
    filled.add(documents(chat, [f"the {word} here", "nothing at all"]))
    for at in range(len(word)):
        wrongs = [word[:at] + "q" + word[at + 1 :], word[:at] + word[at + 1 :], word[:at] + "q" + word[at:]]
        if at + 1 < len(word):
            wrongs.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
        for wrong in wrongs:
            if 1 in matching(wrong, [f"the {word} here"]):
                assert 1 in await filled.index.candidates(chat, parse(wrong), typos=True), wrong


async def test_another_chat_is_another_matter(filled: Filled) -> None:
    one, other = new_chat(), new_chat()
    filled.add(documents(one, ["porcupine"]) + documents(other, ["x", "porcupine"]))
    assert await filled.index.candidates(one, parse("porcupine"), typos=True) == [1]
    assert await filled.index.candidates(other, parse("porcupine"), typos=True) == [2]
    assert await filled.index.candidates(new_chat(), parse("porcupine"), typos=True) == []


async def test_the_newest_are_named_when_there_are_too_many(filled: Filled) -> None:
    chat = new_chat()
    filled.add(documents(chat, ["again and again"] * (CANDIDATES + 50)))
    found = await filled.index.candidates(chat, parse("again"), typos=False)
    assert found == list(range(CANDIDATES + 50, 50, -1))


async def test_an_edited_message_is_found_by_its_new_text(filled: Filled) -> None:
    chat = new_chat()
    filled.add(documents(chat, ["walrus"]))
    filled.add([Document(chat, 1, "penguin", 2)])
    assert await filled.index.candidates(chat, parse("penguin"), typos=False) == [1]


async def test_the_same_again_changes_nothing(filled: Filled) -> None:
    chat = new_chat()
    for _ in range(3):
        filled.add(documents(chat, ["flamingo", "flamingo"]))
    assert await filled.index.candidates(chat, parse("flamingo"), typos=False) == [2, 1]


def test_grams_of_any_text_are_those_of_its_spaced_form() -> None:
    assert spaced("Hello,  World!") == "  hello  world  "
    assert spaced("東京x") == "  東  京  x  "
    assert spaced("...") == "    "
    assert fold("ÀÉÎ ß ﬁ") == "aei ss fi"
    assert fold("がぎ") == "がぎ"  # these marks make other letters, not accents


# What only the search server has --------------------------------------------------------------------------------------


@pytest.fixture(params=["opensearch", "elasticsearch"])
def server(request: pytest.FixtureRequest) -> SearchServer:
    running: SearchServer = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def elastic(server: SearchServer) -> ElasticIndex:
    index = ElasticIndex(connect(server.url))
    index.add([])
    return index


def refresh(server: SearchServer) -> None:
    connect(server.url)("POST", "/_refresh", None, 30.0)


async def test_what_comes_late_replaces_nothing_newer(elastic: ElasticIndex, server: SearchServer) -> None:
    chat = new_chat()
    elastic.add([Document(chat, 1, "newer text", 5)])
    elastic.add([Document(chat, 1, "older words", 4)])
    refresh(server)
    assert await elastic.candidates(chat, parse("newer"), typos=False) == [1]
    assert await elastic.candidates(chat, parse("older"), typos=False) == []


async def test_a_deleted_message_goes(elastic: ElasticIndex, server: SearchServer) -> None:
    chat = new_chat()
    elastic.add(documents(chat, ["gone soon"]))
    elastic.add([Document(chat, 1, None, 9), Document(chat, 2, None, 9)])
    refresh(server)
    assert await elastic.candidates(chat, parse("gone"), typos=False) == []


async def test_a_rebuild_takes_the_old_ones_place_with_what_changed_meanwhile(
    elastic: ElasticIndex, server: SearchServer
) -> None:
    chat = new_chat()
    elastic.add(documents(chat, ["kept one", "stale two"]))
    elastic.start_anew()
    refresh(server)
    assert await elastic.candidates(chat, parse("stale"), typos=False) == [2]  # the old one answers meanwhile
    ElasticIndex(connect(server.url)).add([Document(chat, 3, "meanwhile three", 1)])  # by another process
    elastic.fill(documents(chat, ["kept one"]))
    elastic.adopt()
    for q, found in (("kept", [1]), ("meanwhile", [3]), ("stale", [])):
        assert await elastic.candidates(chat, parse(q), typos=False) == found
    elastic.add([Document(chat, 4, "afterwards four", 1)])
    refresh(server)
    assert await elastic.candidates(chat, parse("afterwards"), typos=False) == [4]


async def test_it_rolls_over_and_finds_in_both(
    elastic: ElasticIndex, server: SearchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = new_chat()
    elastic.add(documents(chat, ["ostrich before"]))
    monkeypatch.setattr("hubbub.search.elastic._ROLL_OVER_EVERY_S", 0.0)
    monkeypatch.setattr("hubbub.search.elastic._ROLL_OVER", {"conditions": {"max_docs": 1}})
    refresh(server)
    elastic.add([])  # rolls over
    elastic.add([Document(chat, 1, "ostrich edited", 2), Document(chat, 2, "ostrich after", 2)])
    refresh(server)
    assert await elastic.candidates(chat, parse("ostrich"), typos=False) == [2, 1]
    indices: dict[str, Any] = connect(server.url)("GET", "/_alias/hubbub-messages", None, 5.0)
    assert len(indices) >= 2


async def test_a_server_that_is_away_is_said_to_be() -> None:
    index = ElasticIndex(connect("http://127.0.0.1:9"))
    with pytest.raises(Unavailable):
        await index.candidates(new_chat(), parse("x"), typos=False)
