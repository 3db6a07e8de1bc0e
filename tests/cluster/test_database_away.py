"""While the database is away, posts to live chats are accepted and shown, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

import httpx
import pytest

from hubbub.chat.errors import Unavailable
from hubbub.cluster.database import Database
from hubbub.loadtest.cluster import ClusterStack
from tests.cluster import truth
from tests.conftest import Person, eventually
from tests.servers import need_servers


@pytest.fixture(scope="module")
def stack() -> Iterator[ClusterStack]:
    need_servers()
    with ClusterStack(apis=2, writers=2, search=None) as stack:
        yield stack


@pytest.fixture
def ann(stack: ClusterStack) -> Iterator[Person]:
    """A user of the first process. Both have noticed that the database is back since the last test."""
    for part in stack.apis:
        eventually(lambda url=part.url: _registers(url), 30)  # type: ignore[misc]
    with closing(Person(stack.url)) as ann:
        yield ann


@pytest.fixture
def other(stack: ClusterStack, ann: Person) -> Iterator[httpx.Client]:
    """The same user, at the second process."""
    with httpx.Client(base_url=stack.apis[1].url + "/api/v1", cookies=dict(ann.cookies), timeout=30) as other:
        yield other


def _registers(url: str) -> bool:
    with suppress(AssertionError), closing(Person(url)):
        return True
    return False


@contextmanager
def away(stack: ClusterStack, how: str) -> Iterator[None]:
    stack.mariadb.kill() if how == "killed" else stack.mariadb.pause()
    time.sleep(0.2)  # until each thread of it stands still
    try:
        yield
    finally:
        stack.mariadb.start() if how == "killed" else stack.mariadb.resume()


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_posts_are_accepted_and_shown(stack: ClusterStack, ann: Person, other: httpx.Client, how: str) -> None:
    chat = ann.chat()
    for client in (ann, other):
        assert client.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
    numbers = {}
    with away(stack, how):
        for turn in range(60):
            writer, reader = (ann, other) if turn % 2 else (other, ann)
            answer = writer.post(f"{chat}/messages", json={"body": f"{turn}"})
            assert answer.status_code == 200, answer.text
            number = numbers[turn] = answer.json()["messageNumber"]
            newest = reader.get(f"{chat}/messages")
            assert (newest.status_code, newest.json()[0]["messageNumber"]) == (200, number)
            assert "hubbub-lag" not in newest.headers
            assert reader.get(f"{chat}/messages/{number}").json()["body"] == f"{turn}"
        edit = {"messageNumber": numbers[3], "body": "edited"}
        assert ann.put(f"{chat}/messages", json=edit).status_code in (200, 403)
    truth.drained(stack)
    bodies = dict(truth.stored(stack, chat))
    assert all(bodies[number] in (f"{turn}", "edited") for turn, number in numbers.items())
    eventually(lambda: bool(ann.get(chat).json().get("messagesCount") == len(numbers) + 2), 30)


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_who_asks_for_a_new_chat_stops_no_posts(
    stack: ClusterStack, ann: Person, other: httpx.Client, how: str
) -> None:
    """The change is refused, and every process goes on with the members that it knows."""
    chat = ann.chat()
    for client in (ann, other):
        assert client.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
    with away(stack, how):
        assert ann.post(chat.rpartition("/")[0]).status_code == 503
        for client in (ann, other):
            assert client.post(f"{chat}/messages", json={"body": "after"}).status_code == 200
    truth.drained(stack)
    assert len(truth.stored(stack, chat)) == 4


def test_new_applications_are_refused_soon_while_it_hangs(stack: ClusterStack, ann: Person) -> None:
    """However many are asked for: what waits is bounded. Posts go on beside them."""
    chat = ann.chat()
    assert ann.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
    seconds: list[float] = []

    def add(_: int) -> int:
        with httpx.Client(base_url=stack.url + "/api/v1", cookies=dict(ann.cookies), timeout=60) as client:
            begun = time.monotonic()  # making 90 clients takes seconds
            status = client.post("/applications", json={"name": "A"}).status_code
        seconds.append(time.monotonic() - begun)
        return status

    with away(stack, "hung"):
        with ThreadPoolExecutor(90) as clients:
            statuses = list(clients.map(add, range(90)))
        assert ann.post(f"{chat}/messages", json={"body": "after"}).status_code == 200
    assert set(statuses) == {503}
    assert max(seconds) < 15


class Pool:
    """Eight connections of a Database, all of which can be in use at once."""

    def __init__(self, stack: ClusterStack) -> None:
        self.database = Database(stack.mariadb.url(), pool_size=8)
        self._stack = stack
        self._threads = ThreadPoolExecutor(8)
        self._together = threading.Barrier(8)

    def numbers(self, *, lose: bool = False) -> list[int]:
        """The connections' numbers. With ``lose`` the server ends one while all are in use, and its number is 0; the
        others are in use until that is found."""
        found = threading.Event()

        def connection(cursor: Any) -> int:
            cursor.execute("SELECT CONNECTION_ID()")
            number = int(cursor.fetchone()[0])
            if self._together.wait(10) == 0 and lose:
                self._stack.mariadb.root(f"KILL {number}")
                cursor.execute("SELECT 1")
            elif lose:
                found.wait(10)
            return number

        def one(_: int) -> int:
            try:
                return self.database.run(connection, commit=False)
            except Unavailable:
                found.set()
                return 0

        return list(self._threads.map(one, range(8)))

    def close(self) -> None:
        self._threads.shutdown()
        self.database.close()


def _connections(stack: ClusterStack) -> set[int]:
    return {int(each) for each in stack.mariadb.root("SELECT id FROM information_schema.processlist").split()[1:]}


async def test_no_read_is_refused_once_it_is_back(stack: ClusterStack) -> None:
    """However many connections of before are kept: once one is found lost, no other is used."""
    with closing(Pool(stack)) as pool:
        stack.mariadb.root("; ".join(f"KILL {number}" for number in pool.numbers()))
        for _ in range(8):
            assert await pool.database.rows("SELECT 1", ()) == [(1,)]


def test_a_lost_connection_leaves_no_more_of_them_than_the_pool_has(stack: ClusterStack) -> None:
    with closing(Pool(stack)) as pool:
        before = pool.numbers()
        assert pool.numbers(lose=True).count(0) == 1
        after = pool.numbers()
        assert len(set(after)) == 8
        assert not set(before) & set(after)
        assert _connections(stack) >= set(after)
        eventually(lambda: _connections(stack).isdisjoint(before))  # the server ends them a moment later
