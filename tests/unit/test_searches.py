"""How much work a search may take, and which other searches wait for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from hubbub.chat import searches
from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey, Message, MessagesRead, Page
from hubbub.chat.ports import Candidates
from hubbub.chat.search import CANDIDATES, Query
from hubbub.chat.search_limiter import OF_ONE_USER
from hubbub.chat.searches import Searches
from tests.conftest import eventually_async
from tests.unit.fakes import CHAT, FakeView


class Chat(FakeView):
    """A view and an index of a chat: ``texts`` are its messages, ``indexed`` the numbers that the index returns.

    Reads wait while it is ``closed``. ``read`` lists the numbers that were asked for.
    """

    def __init__(self, texts: dict[int, str], indexed: Sequence[int] | None = None) -> None:
        super().__init__()
        self.texts = texts
        self.indexed = sorted(texts if indexed is None else indexed, reverse=True)
        self.whole = True
        self.closed = False
        self.read: list[int] = []
        self._opened = asyncio.Event()

    async def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Candidates:
        return Candidates([number for number in self.indexed if below is None or number < below][:limit], self.whole)

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> MessagesRead:
        self.read += numbers
        if self.closed:
            await self._opened.wait()
        return MessagesRead(
            [Message(number, 1, "ref", "A", self.texts[number], 0) for number in numbers if number in self.texts]
        )

    def open(self) -> None:
        self.closed = False
        self._opened.set()


async def find(searching: Searches, user: int, q: str = "needle", limit: int = 10) -> Page:
    return await searching.find(user, CHAT, q, offset=0, limit=limit)


def numbers(page: Page) -> list[int]:
    return [message["messageNumber"] for message in json.loads(page.body)]


async def test_an_ordinary_search_is_not_truncated() -> None:
    words = "the quick brown fox jumps over a lazy dog and runs away before anybody sees its needle-like teeth, öfter"
    chat = Chat(dict.fromkeys(range(1, CANDIDATES + 1), words * 2))
    for q in ("needle teeth", "nedle", "quick fox runs awya", "nothing"):
        page = await find(Searches(chat, chat), 1, q)
        assert not page.truncated, q
        assert len(numbers(page)) == (10 if q != "nothing" else 0)


async def test_a_search_that_runs_out_of_work_says_so_and_has_the_newest() -> None:
    chat = Chat(dict.fromkeys(range(1, CANDIDATES + 1), f"needle {'ab ' * 3000}"))
    page = await find(
        Searches(chat, chat), 1, "needle " + " ".join(f"qqqqqqq{letter}{letter}" for letter in "abcdefghi")
    )
    assert page.truncated
    page = await find(Searches(chat, chat), 1)
    assert page.truncated
    assert numbers(page) == list(range(CANDIDATES, CANDIDATES - 10, -1))


async def test_an_index_that_left_some_out_truncates() -> None:
    chat = Chat({1: "needle"})
    chat.whole = False
    page = await find(Searches(chat, chat), 1)
    assert page.truncated
    assert numbers(page) == [1]


async def test_a_search_that_reads_nothing_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "DEADLINE_S", 0.01)
    chat = Chat({1: "needle"})
    chat.closed = True
    with pytest.raises(Unavailable):
        await find(Searches(chat, chat), 1)


@pytest.mark.parametrize("gone", [{}, dict.fromkeys(range(2, 5001), "edited away")], ids=["deleted", "edited"])
async def test_deleted_and_edited_messages_hide_no_others(gone: dict[int, str]) -> None:
    chat = Chat({1: "the needle", **gone}, indexed=range(1, 5001))
    page = await find(Searches(chat, chat), 1)
    assert numbers(page) == [1]
    assert not page.truncated


async def test_work_stops_when_the_user_has_left() -> None:
    chat = Chat(dict.fromkeys(range(1, 1001), "needle"))
    chat.closed = True
    searching = Searches(chat, chat)
    left = asyncio.ensure_future(find(searching, 1))
    await eventually_async(lambda: bool(chat.read))
    asked = len(chat.read)
    left.cancel()
    chat.open()
    assert numbers(await find(searching, 2))  # its place and its turn are free
    assert chat.read.count(1000 - asked) == 1, "who has left was read for, and who stayed"


async def test_the_searches_of_a_user_are_bounded() -> None:
    chat = Chat({1: "needle"})
    chat.closed = True
    searching = Searches(chat, chat)
    theirs = [asyncio.ensure_future(find(searching, 1)) for _ in range(50)]
    await eventually_async(lambda: sum(each.done() for each in theirs) == 50 - OF_ONE_USER)
    refused = [each.exception() for each in theirs if each.done()]
    assert all(isinstance(each, RateLimited) and each.retry_after == 1 for each in refused)
    chat.open()
    assert numbers(await find(searching, 2)) == [1]
    answered = [each for each in theirs if not each.done() or each.exception() is None]
    assert [numbers(page) for page in await asyncio.gather(*answered)] == [[1]] * OF_ONE_USER
    assert numbers(await find(searching, 1)) == [1]  # places are given back
