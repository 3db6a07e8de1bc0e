"""What a process of a cluster remembers is bounded."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.model import Chat, ChatKey, Message
from hubbub.cluster.redis import keys as redis_keys
from hubbub.cluster.redis import messages, pages
from hubbub.cluster.redis.gate import Seen
from hubbub.cluster.redis.messages import RedisView
from hubbub.cluster.redis.pages import Application, Applications, NewestPage, Pages
from tests.conftest import eventually_async
from tests.unit.fakes import user

CHATS = [ChatKey("T", number) for number in range(1, 8)]


def test_past_the_bound_the_application_held_longest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_APPLICATIONS", 3)
    applications = Applications()
    for token in "abc":
        applications.at(token, b"1")
    applications.at("a", b"2")  # a new version takes no more room
    assert [applications.get(token) is not None for token in "abc"] == [True] * 3
    applications.at("d", b"1")
    assert [token for token in "abcd" if applications.get(token) is not None] == ["b", "c", "d"]


def test_past_the_bound_the_page_read_longest_ago_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_BYTES", 6000)
    newest = Pages(10)
    keys = [ChatKey("a", number) for number in range(1, 5)]
    for key in keys[:3]:
        newest.put(key, NewestPage(b"1", 10, [(1, b"x" * 500)]))
    assert newest.get(keys[0], b"1") is not None
    newest.put(keys[3], NewestPage(b"1", 10, [(1, b"x" * 500)]))
    assert [newest.get(key, b"1") is not None for key in keys] == [True, False, True, True]


class Behind:
    """All that a view has behind it. No chat is live in Redis, and the store has CHATS, without messages.

    ``asked`` are the chats that the store was asked for, ``opening`` those that are asked to be opened. Opening ends
    when ``opened`` is set.
    """

    def __init__(self) -> None:
        self.asked: list[ChatKey] = []
        self.opening: list[ChatKey] = []
        self.opened = asyncio.Event()
        mine = cast(Any, self)
        self.view = RedisView(mine, mine, mine, mine, Applications(), Pages(10), mine)
        self.caller = Caller(user(1), Seen(Application(b"1"), 1, 10, 1, None))

    async def chat(self, key: ChatKey) -> Chat | None:
        self.asked.append(key)
        return Chat(key.number, None, 0, 0) if key in CHATS else None

    async def messages(self, key: ChatKey, *, limit: int) -> list[Message]:
        return []

    async def open(self, key: ChatKey) -> None:
        self.opening.append(key)
        await self.opened.wait()

    def slot_of(self, token: str) -> int:
        return 0

    def fresh(self, slot: int, generation: int) -> bool:
        return True


async def test_past_the_bound_the_chats_that_exist_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_EXISTING", 3)
    behind = Behind()
    for _ in range(2):
        for key in CHATS:
            assert await behind.view.exists(behind.caller, key)
            assert await behind.view.exists(behind.caller, key)
            assert len(behind.view._existing) <= 3
    assert behind.asked == CHATS * 2
    assert not await behind.view.exists(behind.caller, ChatKey("T", 99))


async def test_past_the_bound_a_later_read_opens_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_OPENING", 3)
    behind = Behind()
    for key in CHATS:
        assert (await behind.view.newest(behind.caller, key, 10)).body == b"[]"
    await eventually_async(lambda: len(behind.opening) >= 3)
    assert behind.opening == CHATS[:3]
    behind.opened.set()
    await eventually_async(lambda: not behind.view._going)
    await behind.view.newest(behind.caller, CHATS[-1], 10)
    await eventually_async(lambda: behind.opening == [*CHATS[:3], CHATS[-1]])


def test_past_the_bound_the_names_of_chats_are_made_again() -> None:
    for number in [*range(50_100), 0]:
        assert redis_keys.names_of(1, ChatKey("T", number)).chat == f"1:c:{{T}}:{number}"
    assert redis_keys.names_of.cache_info().currsize == 50_000
    redis_keys.names_of.cache_clear()
