"""The suite of the SearchIndex port: every index returns at least the messages that match."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey, Message
from hubbub.chat.ports import Document, SearchIndex
from hubbub.chat.ranking import Ranking
from hubbub.chat.search import CANDIDATES, Query, fold, parse, spaced
from hubbub.cluster.search import ElasticIndex, connect
from hubbub.embedded.index import Progress, SqliteIndex
from hubbub.loadtest.servers import Elasticsearch, OpenSearch, SearchServer
from tests.searching import Searched, asked_over_a_socket, put

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
    """An index with ``add``, which adds documents so that they are found when it returns."""

    def __init__(self, index: SearchIndex, add: Callable[[Sequence[Document]], None]) -> None:
        self.index = index
        self.add = add


@pytest.fixture(params=["small chats", "chats that join", "opensearch", "elasticsearch"])
async def filled(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Filled]:
    if request.param in ("small chats", "chats that join"):
        small = 10**6 if request.param == "small chats" else 0
        searched = Searched(tmp_path, small=small, application="token-of-search")

        def bring(documents: Sequence[Document]) -> None:
            searched.put(documents)
            searched.steps()
            for each in documents:
                assert searched.has(each.chat) == (small == 0)

        async with asked_over_a_socket(searched.index, searched.scan) as process:
            yield Filled(process, bring)
        searched.close()
        searched.store.close()
    else:
        server: SearchServer = request.getfixturevalue(request.param)
        request_ = connect(server.url)
        elastic = ElasticIndex(request_)

        def add(documents: Sequence[Document]) -> None:
            elastic.add(documents)
            request_("POST", "/_refresh", None, 30.0)

        add([])
        yield Filled(elastic, add)


async def candidates_of(
    index: SearchIndex, chat: ChatKey, query: Query, *, typos: bool, below: int | None = None
) -> list[int]:
    found = await index.candidates(chat, query, typos=typos, below=below)
    assert found.whole
    return found.numbers


def new_chat() -> ChatKey:
    return ChatKey("token-of-search", next(_chats))


def documents(chat: ChatKey, bodies: Sequence[str]) -> list[Document]:
    return [Document(chat, number, body, 1) for number, body in enumerate(bodies, 1)]


def matching(q: str, bodies: Sequence[str]) -> dict[int, bool]:
    """Return the numbers that match, and whether each matches without a typo."""
    messages = [Message(number, 1, "ref", "A", body, 0, None) for number, body in enumerate(bodies, 1)]
    query = parse(q)
    plain = query._replace(terms=tuple(term._replace(typos=()) for term in query.terms))
    exact, all_ = Ranking(plain), Ranking(query)
    exact.look(messages)
    all_.look(messages)
    return {number: number in exact.found for number in all_.found}


async def test_every_match_is_returned(filled: Filled) -> None:
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
        found = await candidates_of(filled.index, chat, parse(q), typos=False)
        assert {number for number, exact in wanted.items() if exact} <= set(found), q
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("word", ["performance", "message", "hello", "kubernetes", "chats"])
async def test_a_match_with_one_typo_anywhere_is_returned(filled: Filled, word: str) -> None:
    chat = new_chat()
    filled.add(documents(chat, [f"the {word} here", "nothing at all"]))
    for at in range(len(word)):
        wrongs = [word[:at] + "q" + word[at + 1 :], word[:at] + word[at + 1 :], word[:at] + "q" + word[at:]]
        if at + 1 < len(word):
            wrongs.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
        for wrong in wrongs:
            if 1 in matching(wrong, [f"the {word} here"]):
                assert 1 in await candidates_of(filled.index, chat, parse(wrong), typos=True), wrong


async def test_each_chat_is_searched_alone(filled: Filled) -> None:
    one, other = new_chat(), new_chat()
    filled.add(documents(one, ["porcupine"]) + documents(other, ["x", "porcupine"]))
    assert await candidates_of(filled.index, one, parse("porcupine"), typos=True) == [1]
    assert await candidates_of(filled.index, other, parse("porcupine"), typos=True) == [2]
    assert await candidates_of(filled.index, new_chat(), parse("porcupine"), typos=True) == []


async def test_the_newest_are_returned_when_there_are_too_many(filled: Filled) -> None:
    chat = new_chat()
    filled.add(documents(chat, ["again and again"] * (CANDIDATES + 50)))
    found = await candidates_of(filled.index, chat, parse("again"), typos=False)
    assert found == list(range(CANDIDATES + 50, 50, -1))


async def test_those_below_a_number_are_returned_some_at_a_time(filled: Filled) -> None:
    chat = new_chat()
    filled.add(documents(chat, ["again", "another"] * 20))
    found = await filled.index.candidates(chat, parse("again"), typos=False, limit=5, below=30)
    assert found.numbers == [29, 27, 25, 23, 21]
    found = await filled.index.candidates(chat, parse("agian"), typos=True, limit=5, below=4)
    assert found.numbers == [3, 1]


async def test_an_edited_message_is_found_by_its_latest_text_alone(filled: Filled) -> None:
    chat = new_chat()
    filled.add(documents(chat, ["walrus"]))
    for version, text in enumerate(("penguin", "walrus again", "pelican"), 2):
        filled.add([Document(chat, 1, text, version, edited=True)])
    filled.add([Document(chat, 2, "pelican", 5, edited=True)])  # edited before it was ever indexed
    for q, found in (("pelican", [2, 1]), ("walrus", []), ("penguin", [])):
        assert await candidates_of(filled.index, chat, parse(q), typos=False) == found


async def test_a_deleted_message_is_not_returned(filled: Filled) -> None:
    chat = new_chat()
    filled.add(documents(chat, ["gone soon", "gone later", "gone never"]))
    filled.add([Document(chat, 2, "gone, edited", 2, edited=True)])
    filled.add([Document(chat, 1, None, 9), Document(chat, 2, None, 9), Document(chat, 77, None, 9)])
    assert await candidates_of(filled.index, chat, parse("gone"), typos=False) == [3]


async def test_changed_messages_take_no_places(filled: Filled) -> None:
    chat = new_chat()
    filled.add(documents(chat, ["capybara"] * (CANDIDATES + 101)))
    changed = [
        Document(chat, number, "x" if number % 2 else None, 2, edited=True) for number in range(2, CANDIDATES + 102)
    ]
    filled.add(changed)
    assert await candidates_of(filled.index, chat, parse("capybara"), typos=False) == [1]


async def test_the_same_again_changes_nothing(filled: Filled) -> None:
    chat = new_chat()
    for _ in range(3):
        filled.add(documents(chat, ["flamingo", "flamingo"]))
    assert await candidates_of(filled.index, chat, parse("flamingo"), typos=False) == [2, 1]


async def test_a_deleted_text_is_overwritten(tmp_path: Path) -> None:
    """Those of edited messages are on disk. The longest have pages of their own, which are free afterwards."""
    index = SqliteIndex(tmp_path, 1)
    file = index.start_anew()
    put(file, [Document(new_chat(), 1, "unmistakable" * 800, 2, edited=True)], Progress(0))
    file.sync()
    assert b"unmistakable" in file.path.read_bytes()
    file.add([Document(ChatKey("token-of-search", next(_chats) - 1), 1, None)])
    file.sync()
    assert b"unmistakable" not in file.path.read_bytes()
    file.close()
    index.close()


def test_some_characters_become_words_but_a_text_stays_bounded() -> None:
    assert fold("\ufdfa") == "صلى الله عليه وسلم"
    assert fold("Ｈａｎｇｕｌ 각 각") == "hangul 각 각"
    assert len(spaced("\ufdfa" * 10_000)) < 60_000
    assert fold("a" + "\u0591" * 100) == "a" + "\u0591" * 30


def test_grams_of_any_text_are_those_of_its_spaced_form() -> None:
    assert spaced("Hello,  World!") == "  hello  world  "
    assert spaced("東京x") == "  東  京  x  "
    assert spaced("...") == "    "
    assert fold("ÀÉÎ ß ﬁ") == "aei ss fi"
    assert fold("がぎ") == "がぎ"  # these marks make other letters, not accents


# Only the search server -----------------------------------------------------------------------------------------------


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


async def test_a_late_document_replaces_nothing_newer(elastic: ElasticIndex, server: SearchServer) -> None:
    chat = new_chat()
    elastic.add([Document(chat, 1, "newer text", 5)])
    elastic.add([Document(chat, 1, "older words", 4)])
    refresh(server)
    assert await candidates_of(elastic, chat, parse("newer"), typos=False) == [1]
    assert await candidates_of(elastic, chat, parse("older"), typos=False) == []


async def test_a_rebuild_replaces_the_old_index_and_has_what_changed_meanwhile(
    elastic: ElasticIndex, server: SearchServer
) -> None:
    chat = new_chat()
    elastic.add(documents(chat, ["kept one", "stale two"]))
    elastic.start_anew()
    refresh(server)
    assert await candidates_of(elastic, chat, parse("stale"), typos=False) == [2]  # the old index answers meanwhile
    ElasticIndex(connect(server.url)).add([Document(chat, 3, "meanwhile three", 1)])  # by another process
    elastic.fill(documents(chat, ["kept one"]))
    elastic.adopt()
    for q, found in (("kept", [1]), ("meanwhile", [3]), ("stale", [])):
        assert await candidates_of(elastic, chat, parse(q), typos=False) == found
    elastic.add([Document(chat, 4, "afterwards four", 1)])
    refresh(server)
    assert await candidates_of(elastic, chat, parse("afterwards"), typos=False) == [4]


async def test_the_index_rolls_over_and_searches_both(
    elastic: ElasticIndex, server: SearchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = new_chat()
    elastic.add(documents(chat, ["ostrich before", "ostrich before"]))
    monkeypatch.setattr("hubbub.cluster.search._ROLL_OVER_EVERY_S", 0.0)
    monkeypatch.setattr("hubbub.cluster.search._ROLL_OVER", {"conditions": {"max_docs": 1}})
    refresh(server)
    elastic.add([])  # rolls over
    elastic.add([Document(chat, 1, "ostrich edited", 2, edited=True), Document(chat, 3, "ostrich after", 2)])
    elastic.add([Document(chat, 2, None)])
    refresh(server)
    assert await candidates_of(elastic, chat, parse("ostrich"), typos=False) == [3, 1]
    assert await candidates_of(elastic, chat, parse("before"), typos=False) == []
    indices: dict[str, Any] = connect(server.url)("GET", "/_alias/hubbub-messages", None, 5.0)
    assert len(indices) >= 2


class Meanwhile:
    """A connection that does something just before the first request to a path, as another process might."""

    def __init__(self, server: SearchServer, path: str, happens: Callable[[], object]) -> None:
        self._request = connect(server.url)
        self._path = path
        self._happens: Callable[[], object] | None = happens

    def __call__(self, method: str, path: str, body: Any, within_s: float) -> Any:
        if self._happens is not None and path.startswith(self._path):
            happens, self._happens = self._happens, None
            happens()
        return self._request(method, path, body, within_s)

    @property
    def happened(self) -> bool:
        return self._happens is None


def indices(server: SearchServer) -> set[str]:
    return set(connect(server.url)("GET", "/hubbub-messages*/_alias", None, 5.0))


async def test_a_switch_of_the_index_between_two_requests_loses_nothing(
    elastic: ElasticIndex, server: SearchServer
) -> None:
    chat = new_chat()
    elastic.add(documents(chat, ["curlew one"]))
    elastic.start_anew()
    elastic.fill(documents(chat, ["curlew one"]))
    switched = Meanwhile(server, "/hubbub-messages-next/_bulk", elastic.adopt)
    ElasticIndex(switched).add([Document(chat, 2, "curlew two", 1)])  # by another process
    assert switched.happened
    refresh(server)
    assert await candidates_of(elastic, chat, parse("curlew"), typos=False) == [2, 1]
    assert "hubbub-messages-next" not in indices(server)
    elastic.start_anew()
    elastic.fill(documents(chat, ["curlew again"]))
    elastic.adopt()
    assert await candidates_of(elastic, chat, parse("curlew"), typos=False) == [1]


async def test_an_index_that_vanishes_is_made_again_by_the_next_write(
    elastic: ElasticIndex, server: SearchServer
) -> None:
    chat = new_chat()
    for index in indices(server):
        connect(server.url)("DELETE", f"/{index}", None, 30.0)
    elastic.add(documents(chat, ["dunlin"]))
    refresh(server)
    assert await candidates_of(elastic, chat, parse("dunlin"), typos=False) == [1]
    assert "hubbub-messages" not in indices(server)


@pytest.mark.parametrize("taken", ["hubbub-messages", "hubbub-messages-next"])
async def test_a_rebuild_repairs_an_index_that_has_the_name_of_an_alias(server: SearchServer, taken: str) -> None:
    """Version 0.1.0 left such indices."""
    chat = new_chat()
    request = connect(server.url)
    for index in indices(server):
        request("DELETE", f"/{index}", None, 30.0)
    request("PUT", f"/{taken}", None, 30.0)
    request("PUT", "/hubbub-messages-of-somebody-else", None, 30.0)
    elastic = ElasticIndex(request)
    elastic.start_anew()
    elastic.fill(documents(chat, ["sanderling"]))
    elastic.adopt()
    assert await candidates_of(elastic, chat, parse("sanderling"), typos=False) == [1]
    elastic.add([Document(chat, 2, "sanderling", 1)])
    refresh(server)
    assert await candidates_of(elastic, chat, parse("sanderling"), typos=False) == [2, 1]
    assert taken not in indices(server)
    assert "hubbub-messages-of-somebody-else" in indices(server)
    request("DELETE", "/hubbub-messages-of-somebody-else", None, 30.0)


def test_the_next_rebuild_removes_what_a_killed_one_left(elastic: ElasticIndex, server: SearchServer) -> None:
    request = connect(server.url)
    request("PUT", "/hubbub-messages-1700000000000-000001", None, 30.0)
    elastic.start_anew()
    elastic.adopt()
    assert len(indices(server)) == 1


def test_the_later_of_two_rebuilds_counts(elastic: ElasticIndex, server: SearchServer) -> None:
    other = ElasticIndex(connect(server.url))
    elastic.start_anew()
    other.start_anew()
    with pytest.raises(Unavailable, match="another rebuild"):
        elastic.adopt()
    other.adopt()
    with pytest.raises(Unavailable, match="another rebuild"):
        elastic.fill(documents(new_chat(), ["late"]))


async def test_a_rebuild_survives_a_roll_over_at_its_end(elastic: ElasticIndex, server: SearchServer) -> None:
    def roll_over() -> None:
        connect(server.url)("POST", "/hubbub-messages/_rollover", None, 30.0)

    chat = new_chat()
    rebuilding = ElasticIndex(Meanwhile(server, "/_aliases", roll_over))
    rebuilding.start_anew()
    rebuilding.fill(documents(chat, ["godwit"]))
    rebuilding.adopt()
    elastic.add([Document(chat, 2, "godwit", 1)])
    refresh(server)
    assert await candidates_of(elastic, chat, parse("godwit"), typos=False) == [2, 1]


async def test_an_impossible_document_stops_no_other(
    elastic: ElasticIndex, server: SearchServer, caplog: pytest.LogCaptureFixture
) -> None:
    chat = new_chat()
    impossible = Document(chat, 2**63, "whimbrel", 1)  # a number that no index can hold
    for batch in ([impossible], [Document(chat, 1, "whimbrel", 1), impossible, Document(chat, 2, "whimbrel", 1)]):
        caplog.clear()
        elastic.add(batch)
        assert f"Message {2**63} of chat {chat.number} of application toke… can't be indexed" in caplog.text
    refresh(server)
    assert await candidates_of(elastic, chat, parse("whimbrel"), typos=False) == [2, 1]


async def test_a_server_that_refuses_all_is_tried_again(elastic: ElasticIndex, server: SearchServer) -> None:
    chat = new_chat()
    request = connect(server.url)
    request("PUT", "/hubbub-messages/_settings", {"index.blocks.write": True}, 30.0)
    with pytest.raises(Unavailable):
        elastic.add(documents(chat, ["plover"]))
    request("PUT", "/hubbub-messages/_settings", {"index.blocks.write": None}, 30.0)
    elastic.add(documents(chat, ["plover"]))
    refresh(server)
    assert await candidates_of(elastic, chat, parse("plover"), typos=False) == [1]


def heavy(count: int) -> list[str]:
    """Return texts that fill an index: letters of four bytes, with hardly a gram twice."""
    rng = random.Random(7)
    return ["".join(rng.choices([chr(0x10400 + at) for at in range(0x80)], k=10_000)) for _ in range(count)]


@pytest.fixture(params=[OpenSearch, Elasticsearch])
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SearchServer]:
    """A server that accepts only small requests."""
    kind: type[SearchServer] = request.param
    absent = kind.absent()
    if absent:
        pytest.skip(absent)
    server = kind(tmp_path, ("http.max_content_length=100kb",))
    server.start()
    yield server
    server.stop()


async def test_a_server_with_a_small_limit_gets_small_requests(
    narrow: SearchServer, caplog: pytest.LogCaptureFixture
) -> None:
    chat = new_chat()
    (large,) = heavy(1)  # more than the server accepts
    bodies = ["turnstone " + " ".join(f"{number}x{word}" for word in range(300)) for number in range(60)]
    elastic = ElasticIndex(connect(narrow.url))
    batch = documents(chat, [*bodies, large, "turnstone last"])
    elastic.add(batch)
    refresh(narrow)
    found = await candidates_of(elastic, chat, parse("turnstone"), typos=False)
    assert found == [62, *range(60, 0, -1)]
    assert caplog.text.count("can't be indexed") == 1
    assert f"Message 61 of chat {chat.number}" in caplog.text
    elastic.start_anew()
    elastic.fill(batch)
    elastic.adopt()
    assert await candidates_of(elastic, chat, parse("turnstone"), typos=False) == found


def test_a_bulk_request_is_bounded() -> None:
    sizes = []

    def request(method: str, path: str, body: Any, within_s: float) -> Any:
        if path.startswith("/hubbub-messages/_bulk"):
            sizes.append(len(body))
            return {"errors": False}
        return {"hubbub-messages-000001": {}} if path == "/_alias/hubbub-messages" else {}

    ElasticIndex(request).add(documents(new_chat(), heavy(100)))
    assert sum(sizes) > 10 * 1024 * 1024
    assert max(sizes) <= 5 * 1024 * 1024


async def test_a_server_that_is_away_is_reported() -> None:
    index = ElasticIndex(connect("http://127.0.0.1:9"))
    with pytest.raises(Unavailable):
        await candidates_of(index, new_chat(), parse("x"), typos=False)
