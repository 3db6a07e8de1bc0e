"""Large pages: other work runs while they are encoded, users take turns, and waiting pages hold no messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hubbub.chat import large_pages
from hubbub.chat.encoding import encode_message
from hubbub.chat.large_pages import AT_ONCE, FEW, LARGE, SLICE, LargePages, encode_in_slices
from hubbub.chat.model import Message, MessagesRead, Page


def texts(count: int, text: str = "\x01" * 10_000) -> list[Message]:
    return [Message(number, 1, "ref", "A", text, 1) for number in range(count, 0, -1)]


@contextmanager
def slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Record the bytes of JSON made in each turn of the loop; the last entry is the current turn."""
    made = [0]

    def counted(messages: tuple[Message, ...]) -> list[tuple[int, bytes]]:
        items = [(message.number, encode_message(message)) for message in messages]
        made[-1] += sum(len(item) for _, item in items)
        return items

    with monkeypatch.context() as patch:
        patch.setattr(large_pages, "encode_messages", counted)
        yield made


async def test_other_work_runs_between_the_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    with slices(monkeypatch) as made:
        encoding = asyncio.ensure_future(encode_in_slices(texts(100)))
        while not encoding.done():
            await asyncio.sleep(0)
            made.append(0)
    assert [number for number, _ in await encoding] == list(range(100, 0, -1))
    assert sum(made) > 6_000_000
    assert max(made) < SLICE + 61_000


async def test_an_ordinary_page_never_waits() -> None:
    async def read() -> MessagesRead:
        return MessagesRead(texts(101, "x" * (LARGE // 101)), lag=True)

    coroutine = LargePages().page(1, read, 100)
    with pytest.raises(StopIteration) as made:
        coroutine.send(None)
    page: Page = made.value.value
    assert page.more
    assert page.lag
    assert (page.newest, page.oldest) == (101, 2)


class Reader:
    """A reader of pages of the longest messages. ``reads`` and ``ended`` list the user of each read and end."""

    def __init__(self) -> None:
        self.pages = LargePages()
        self.reads: list[int] = []
        self.ended: list[int] = []

    async def page(self, user: int, limit: int = FEW + 1) -> None:
        async def read() -> MessagesRead:
            self.reads.append(user)
            return MessagesRead(texts(limit + 1))

        page = await self.pages.page(user, read, limit)
        self.ended.append(user)
        assert len(json.loads(page.body)) == limit
        assert page.more


async def test_few_are_encoded_at_once_and_a_page_that_waited_is_read_again() -> None:
    reader = Reader()
    await asyncio.gather(*map(reader.page, range(AT_ONCE + 3)))
    assert reader.reads == [*range(AT_ONCE + 3), *range(AT_ONCE, AT_ONCE + 3)]
    assert reader.ended == list(range(AT_ONCE + 3))


async def test_a_user_who_asks_for_many_is_the_only_one_who_waits_for_them() -> None:
    reader = Reader()
    await asyncio.gather(*map(reader.page, [1] * 20 + [2]))
    assert reader.ended.index(2) <= 1
    assert reader.reads.index(2) <= 1


async def test_a_page_of_few_messages_waits_for_nothing() -> None:
    reader = Reader()
    large = asyncio.gather(*map(reader.page, [1] * 20))
    await asyncio.sleep(0)
    await reader.page(1, FEW)
    assert reader.ended == [1]
    await large
