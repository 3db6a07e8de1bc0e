"""Of the reads of MySQL one user has a share, and each counts for the user whose request it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from typing import Any, cast

import pytest

from hubbub.chat.accounts import Accounts
from hubbub.chat.caller import asking
from hubbub.chat.errors import RateLimited
from hubbub.chat.model import User
from hubbub.chat.ports import Wants
from hubbub.cluster.database import Database
from hubbub.http import eager
from hubbub.http.edge import Edge
from hubbub.http.limits import LocalGate
from hubbub.http.sessions import Sessions
from tests.conftest import eventually_async
from tests.unit.fakes import CHAT
from tests.unit.test_sessions import SECRET, bearer


class Slow(Database):
    """A database of four connections whose reads take until they are ``let`` go. ``begun`` has who asked for each."""

    def __init__(self) -> None:
        super().__init__("mysql://nobody@127.0.0.1:1/none", pool_size=4)
        self.let = threading.Event()
        self.begun: list[str] = []

    def _read(self, sql: str, parameters: Any, at: Any) -> list[Any]:
        self.begun.append(sql)
        self.let.wait(10)
        return [sql]

    def asked_by(self, user: str) -> asyncio.Task[list[Any]]:
        async def ask() -> list[Any]:
            asking.set(user)
            return await self.rows(user, ())

        return asyncio.create_task(ask())


@pytest.fixture
def database() -> Iterator[Slow]:
    database = Slow()
    yield database
    database.let.set()
    database.close()


async def test_the_reads_of_one_user_hold_up_no_other(database: Slow) -> None:
    anns = [database.asked_by("ann") for _ in range(4 * 16)]
    await eventually_async(lambda: len(database.begun) == 3)
    with pytest.raises(RateLimited):
        await database.asked_by("ann")
    others = [database.asked_by("bob"), database.asked_by("")]
    await eventually_async(lambda: len(database.begun) == 4)
    assert database.begun == ["ann", "ann", "ann", "bob"]
    database.let.set()
    assert await asyncio.gather(*anns, *others) == [["ann"]] * 64 + [["bob"], [""]]
    assert await database.asked_by("ann") == ["ann"]


async def test_reads_that_nobody_waits_for_any_more_make_room(database: Slow) -> None:
    anns = [database.asked_by("ann") for _ in range(4 * 16)]
    await eventually_async(lambda: len(database.begun) == 3)
    for read in anns[3:]:
        read.cancel()
    await asyncio.gather(*anns[3:], return_exceptions=True)
    more = database.asked_by("ann")
    database.let.set()
    assert await asyncio.gather(*anns[:3], more) == [["ann"]] * 4


class Asked(Accounts):
    """An account, of Ann. ``by`` has who was asking at each read."""

    def __init__(self) -> None:
        self.by: list[str] = []

    async def user(self, ref: str) -> User:
        self.by.append(asking.get())
        return User(1, ref, "ann@example.com", "Ann", 0)

    async def session_lives(self, user: User, era: str, session: str) -> bool:
        self.by.append(asking.get())
        return True


@pytest.mark.parametrize("hot", [True, False])
async def test_every_request_with_a_session_asks_for_its_user(hot: bool) -> None:
    accounts, read_by, token = Asked(), list[str](), bearer()
    sessions = Sessions(accounts, SECRET, LocalGate(1000))

    async def future() -> None:
        answered = asyncio.get_running_loop().create_future()
        answered.get_loop().call_soon(answered.set_result, None)
        await answered

    async def request(waits: Awaitable[None]) -> None:
        if hot:
            await sessions.enter(None, token, Wants(CHAT))
        else:
            await sessions.of(None, token)
        await waits
        read_by.append(asking.get())

    for waits in (asyncio.sleep(0), future()):
        eager.run(request(waits), lambda _: None)
    await eventually_async(lambda: len(read_by) == 2)
    assert accounts.by == ["ann"] * 3, (
        "the user before and after the mark, and the session; the second time, it was remembered"
    )
    assert read_by == ["ann"] * 2
    assert asking.get() == ""


@pytest.mark.parametrize("hot", [True, False])
async def test_a_request_without_a_session_is_nobodys(hot: bool) -> None:
    """Even if it begins while another is answered."""
    first, second, edge = list[str](), list[str](), Edge(cast(Any, None), cast(Any, None))

    async def anonymous() -> None:
        second.append(asking.get())
        await asyncio.sleep(0)
        second.append(asking.get())

    async def request() -> None:
        asking.set("ann")
        if hot:
            eager.run(anonymous(), lambda _: None)
        else:
            edge.start(anonymous())
        await asyncio.sleep(0)
        first.append(asking.get())

    eager.run(request(), lambda _: None)
    await eventually_async(lambda: len(first) == 1 and len(second) == 2)
    assert (first, second) == (["ann"], ["", ""])
