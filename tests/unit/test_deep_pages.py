"""A user's deep pages are read one at a time, and no user waits for another's."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.chat.applications import Applications
from hubbub.chat.caller import Caller
from hubbub.chat.chats import Chats
from hubbub.chat.deep_pages import DEEP, MOST_OF_USER, MOST_USERS, DeepPages
from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import MessagesRead, Page
from tests.conftest import eventually_async
from tests.unit.fakes import CHAT, MEMBER, OWNER, TOKEN, Fakes


class Slow(Fakes):
    """Fakes whose pages of messages wait for ``released``. ``begun`` counts the reads."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.begun = 0

        async def messages(*_: object, **__: object) -> MessagesRead:
            self.begun += 1
            await self.released.wait()
            return MessagesRead([])

        self.view.messages = messages  # type: ignore[method-assign]


async def page(fakes: Fakes, caller: Caller, offset: int) -> Page:
    return await (await Chats(fakes.ports).enter(caller, CHAT)).messages(limit=100, offset=offset)


async def test_deep_pages_of_a_user_are_read_one_at_a_time() -> None:
    fakes = Slow()
    deep = [asyncio.create_task(page(fakes, MEMBER, 5000 + number)) for number in range(MOST_OF_USER)]
    await eventually_async(lambda: fakes.begun == 1)
    with pytest.raises(RateLimited):
        await page(fakes, MEMBER, 5000)
    with pytest.raises(RateLimited):  # all lists share the turns
        await (await Applications(fakes.ports).enter(MEMBER, TOKEN)).chats(offset=DEEP + 1)
    assert fakes.begun == 1
    others = [asyncio.create_task(page(fakes, OWNER, 5000)), asyncio.create_task(page(fakes, MEMBER, DEEP))]
    await eventually_async(lambda: fakes.begun == 3)
    fakes.released.set()
    await asyncio.gather(*deep, *others)
    assert fakes.begun == MOST_OF_USER + 2
    await page(fakes, MEMBER, 5000)


async def test_a_read_that_fails_or_is_cancelled_makes_room() -> None:
    pages = DeepPages()
    for _ in range(2 * MOST_OF_USER):
        with pytest.raises(ValueError, match="wrong"):
            async with pages.turn(1, DEEP + 1):
                raise ValueError("wrong")
    async with pages.turn(1, DEEP + 1):
        for _ in range(2 * MOST_OF_USER):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0), pages.turn(1, DEEP + 1):
                    pass


async def test_the_number_of_users_who_wait_is_bounded() -> None:
    pages = DeepPages()
    turns = [pages.turn(number, DEEP + 1) for number in range(MOST_USERS)]
    for turn in turns:
        await turn.__aenter__()
    with pytest.raises(Unavailable):
        await pages.turn(MOST_USERS, DEEP + 1).__aenter__()
    for turn in turns:
        await turn.__aexit__(None, None, None)
    async with pages.turn(MOST_USERS, DEEP + 1):
        pass
