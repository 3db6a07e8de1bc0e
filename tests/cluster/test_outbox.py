"""Each change is noted for the index, which gets the changes in parts that fit into memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.chat.search import parse
from hubbub.cluster.database import Database
from hubbub.cluster.deliveries import Deliveries
from hubbub.cluster.migrate import migrate
from hubbub.cluster.outbox import Outbox, Round
from hubbub.cluster.protocol import Delete, Delivery, Edit, Post, order_of
from hubbub.cluster.search import ElasticIndex, connect
from hubbub.cluster.store import MySqlStore
from hubbub.loadtest.servers import MariaDb, OpenSearch
from tests.servers import new_database

_tokens = itertools.count(1)  # the tests share an index
TEXT_BYTES = 4 * 1024 * 1024
NOW = 1_800_000_000_000


class Noted:
    """A database with a chat, and its outbox."""

    def __init__(self, url: str) -> None:
        self.chat = ChatKey(f"token-{next(_tokens)}-of-the-outbox", 1)
        self.database = Database(url)
        migrate(self.database.engine)
        self.outbox = Outbox(self.database)
        store = MySqlStore(self.database)
        store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddApplication(self.chat.token, "T", 1, 2)])
        store.apply([AddChat(self.chat.token, None, 3)])
        self.deliveries = Deliveries(self.database, store.uncounted, note_changes=True)
        self.sequence = 0

    def apply(self, *commands: Post | Edit | Delete) -> None:
        self.sequence += 1
        self.deliveries.apply(0, 4, [Delivery("api", self.sequence, list(commands))])

    def post(self, *bodies: str, first: int = 1) -> None:
        self.apply(*(Post(self.chat, number, 1, "A", body, NOW) for number, body in enumerate(bodies, first)))

    def documents(self) -> list[list[Document]]:
        parts: list[list[Document]] = []
        while self.outbox.index_changes(parts.append).changes:
            pass
        return parts


@pytest.fixture
def noted(mariadb: MariaDb) -> Iterator[Noted]:
    noted = Noted(new_database(mariadb))
    yield noted
    noted.database.close()


async def test_messages_are_indexed_once_as_they_are_now(noted: Noted) -> None:
    noted.post("one", "two", "three")
    noted.apply(Edit(noted.chat, 1, 1, "one more", NOW + 1), Delete(noted.chat, 2, 1, False))
    assert await noted.outbox.index_lag() > 0
    (documents,) = noted.documents()
    assert {document.number: document.body for document in documents} == {1: "one more", 2: None, 3: "three"}
    assert {document.number for document in documents if document.edited} == {1}
    assert [each.number for each in noted.outbox.all_messages((noted.chat.token, 0, 0)) if each.edited] == [1]
    assert noted.documents() == []
    assert await noted.outbox.index_lag() == 0


def test_a_change_that_the_index_refused_stays_noted(noted: Noted) -> None:
    noted.post("one")

    def refuse(documents: list[Document]) -> None:
        raise Unavailable("Not now.")

    with pytest.raises(Unavailable):
        noted.outbox.index_changes(refuse)
    assert [[document.body for document in documents] for documents in noted.documents()] == [["one"]]


def test_large_texts_come_a_few_at_a_time(noted: Noted) -> None:
    body = "🎉" * 10_000
    for first in range(1, 401, 50):
        noted.post(*[body] * 50, first=first)
    noted.post("x" * (TEXT_BYTES + 1), "a short one", first=401)
    parts = noted.documents()
    assert sorted(document.number for part in parts for document in part) == list(range(1, 403))
    pages, after = [], (noted.chat.token, 0, 0)
    while page := noted.outbox.all_messages(after):
        pages.append(page)
        after = (*page[-1].chat, page[-1].number)
    assert [document.number for page in pages for document in page] == list(range(1, 403))
    for part in [*parts, *pages]:
        assert len(part) == 1 or sum(len((document.body or "").encode()) for document in part) <= TEXT_BYTES


def test_many_small_ones_come_together(noted: Noted) -> None:
    for first in range(1, 1001, 100):
        noted.post(*["x"] * 100, first=first)
    assert [len(part) for part in noted.documents()] == [1000]
    noted.post("x", first=1001)
    assert noted.outbox.index_changes(lambda _: None) == Round(1, more=False)


def test_very_many_notes_are_taken_in_parts(noted: Noted) -> None:
    for first in range(1, 20_001, 2000):
        noted.post(*["x"] * 2000, first=first)
    taken: list[Document] = []
    found = noted.outbox.index_changes(taken.extend)
    assert found.changes < 10
    assert found.more
    assert 2000 <= len(taken) < 20_000
    taken += [document for part in noted.documents() for document in part]
    assert len(taken) == 20_000


async def test_an_edit_by_a_slow_clock_is_found(noted: Noted, opensearch: OpenSearch) -> None:
    index = ElasticIndex(connect(opensearch.url))

    async def found(q: str) -> list[int]:
        noted.outbox.index_changes(index.add)
        connect(opensearch.url)("POST", "/_refresh", None, 30.0)
        return (await index.candidates(noted.chat, parse(q), typos=False)).numbers

    noted.post("lapwing")
    assert await found("lapwing") == [1]
    noted.apply(Edit(noted.chat, 1, 1, "redshank", NOW - 60_000, order=1))
    late: list[Document] = []
    noted.outbox.index_changes(late.extend)
    index.add(late)
    assert await found("redshank") == [1]
    noted.apply(Edit(noted.chat, 1, 1, "greenshank", NOW - 120_000, order=2))
    assert await found("greenshank") == [1]
    index.add(late)  # the same again, late
    assert await found("redshank") == []
    assert await found("greenshank") == [1]


async def test_a_late_text_does_not_bring_a_deleted_message_back(noted: Noted, opensearch: OpenSearch) -> None:
    """As when a writer was frozen, or killed while the search server did not answer."""
    index = ElasticIndex(connect(opensearch.url))
    late: list[Document] = []
    noted.post("whimbrel")
    noted.apply(Edit(noted.chat, 1, 1, "whimbrel again", NOW, order=5))
    noted.outbox.index_changes(late.extend)
    noted.apply(Delete(noted.chat, 1, 1, any_sender=False, order=4))
    noted.outbox.index_changes(index.add)
    index.add(late)
    connect(opensearch.url)("POST", "/_refresh", None, 30.0)
    assert (await index.candidates(noted.chat, parse("whimbrel"), typos=False)).numbers == []


async def test_a_command_that_was_not_stored_removes_no_message_of_its_number(
    noted: Noted, opensearch: OpenSearch
) -> None:
    """Its number is given again in the next epoch, and its change may come late to the index."""
    index = ElasticIndex(connect(opensearch.url))
    noted.database.run(lambda cursor: cursor.execute("UPDATE chats SET epoch = 2, live_epoch = 2"))
    late: list[Document] = []
    noted.apply(Post(noted.chat, 1, 1, "A", "of an older epoch", NOW, epoch=1))
    noted.apply(Delete(noted.chat, 2, 1, any_sender=False, order=order_of(2, 1)))
    noted.outbox.index_changes(late.extend)
    noted.apply(*(Post(noted.chat, number, 1, "A", "curlew", NOW, epoch=2) for number in (1, 2)))
    noted.outbox.index_changes(index.add)
    if late:
        index.add(late)
    connect(opensearch.url)("POST", "/_refresh", None, 30.0)
    assert (await index.candidates(noted.chat, parse("curlew"), typos=False)).numbers == [2, 1]


async def test_an_edit_without_an_order_is_found(noted: Noted, opensearch: OpenSearch) -> None:
    index = ElasticIndex(connect(opensearch.url))
    noted.post("dotterel")
    noted.outbox.index_changes(index.add)
    noted.apply(Edit(noted.chat, 1, 1, "oystercatcher", NOW - 60_000))
    noted.outbox.index_changes(index.add)
    connect(opensearch.url)("POST", "/_refresh", None, 30.0)
    assert (await index.candidates(noted.chat, parse("oystercatcher"), typos=False)).numbers == [1]
