"""What is too much for one step of a search waits for the next, and what was forgotten is found out again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from hubbub.chat.model import ChatKey, Message, MessagesRead
from hubbub.chat.ports import Document
from hubbub.chat.ranking import Ranking
from hubbub.chat.search import parse
from hubbub.chat.searches import Searches
from hubbub.cluster.search import ElasticIndex
from hubbub.embedded import index_chats
from hubbub.embedded.index import Indexed, IndexFile, Progress, SqliteIndex
from hubbub.embedded.scan import Scan
from tests.conftest import eventually_async
from tests.searching import asked_over_a_socket, put
from tests.unit.fakes import CHAT, FakeIndex, FakeView


class Held:
    """Calls that wait on their threads until ``go`` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0
        self._before = set(threading.enumerate())

    def wait(self) -> None:
        self.begun += 1
        self.go.wait(10)

    def new_threads(self, prefix: str) -> int:
        """How many threads of this name were started since this was made."""
        return sum(thread.name.startswith(prefix) for thread in {*threading.enumerate()} - self._before)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.set()


async def test_searches_wait_for_the_threads_that_ask_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: Held
) -> None:
    searched, find = SqliteIndex(tmp_path, 1), IndexFile.find
    file = searched.start_anew()
    put(file, [Document(CHAT, 1, "needle", 1)], Progress(0))
    searched.adopt(file)

    def held_find(*arguments: Any) -> Indexed:
        held.wait()
        return find(*arguments)

    monkeypatch.setattr(IndexFile, "find", held_find)
    async with asked_over_a_socket(searched, Scan(cast(Any, None), searched, cast(Any, None))) as process:
        asked = [asyncio.ensure_future(process.candidates(CHAT, parse("needle"), typos=False)) for _ in range(6)]
        await eventually_async(lambda: held.begun >= 2)
        assert (held.new_threads("search_"), held.begun) == (2, 2)
        held.go.set()
        assert [found.numbers for found in await asyncio.gather(*asked)] == [[1]] * 6
    searched.close()


async def test_searches_wait_for_the_thread_that_ranks(monkeypatch: pytest.MonkeyPatch, held: Held) -> None:
    class Read(FakeView):
        reads = 0

        async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> MessagesRead:
            self.reads += 1
            return await super().numbered(key, numbers)

    view, look = Read(), Ranking.look
    searches = Searches(view, FakeIndex())

    def held_look(ranking: Ranking, messages: Sequence[Message]) -> int:
        held.wait()
        return look(ranking, messages)

    monkeypatch.setattr(Ranking, "look", held_look)
    asked = [asyncio.ensure_future(searches.find(user, CHAT, "message", offset=0, limit=9)) for user in (1, 2, 3)]
    await eventually_async(lambda: view.reads == 3 and held.begun >= 1)
    assert (held.new_threads("search-rank"), held.begun) == (1, 1)
    held.go.set()
    for page in await asyncio.gather(*asked):
        assert [message["messageNumber"] for message in json.loads(page.body)] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("timed_out", [False, True])
async def test_a_search_for_which_the_search_server_has_no_time_says_so(timed_out: bool) -> None:
    asked: list[str] = []

    def server(method: str, path: str, body: Any, _within_s: float) -> Any:
        if "/_search" in path:
            asked.append(body["timeout"])
            return {"timed_out": timed_out, "hits": {"hits": [{"sort": [number]} for number in (5, 4)]}}
        return {"hubbub-messages-000001": {}}

    page = await Searches(FakeView(), ElasticIndex(server)).find(1, CHAT, "message", offset=0, limit=9)
    assert [message["messageNumber"] for message in json.loads(page.body)] == [5, 4]
    assert page.truncated is timed_out
    assert set(asked) == {"1000ms"}


def test_the_rows_of_forgotten_chats_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_chats, "_KNOWN_CHATS", 2)
    files = SqliteIndex(tmp_path, 1)
    file = files.start_anew()
    chats = [ChatKey("T", number) for number in range(1, 6)]
    for number in (1, 2):
        for chat in chats:
            put(file, [Document(chat, number, f"needle {chat.number}", 1)], Progress(0))
            assert len(file._chats._known) <= 2
    for chat in chats:
        assert file.find(chat, '"nee"', 10).numbers == [2, 1]
    file.close()
    files.close()
