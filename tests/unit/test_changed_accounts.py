"""Whatever changes a user's account, in whichever process, makes each process check the user's sessions again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from hubbub.chat.commands import (
    Command,
    DeleteUser,
    EndSession,
    EndSessions,
    RenameUser,
    ResetPassword,
    SetPassword,
)
from hubbub.chat.feed import Feed
from hubbub.embedded import remembered as remembered_module
from hubbub.embedded.remembered import Remembered
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.http.limits import LocalGate

ANN, BOB = 1, 2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "hubbub.db")
    yield store
    store.close()


@pytest.mark.parametrize(
    "command",
    [
        EndSession("session", 1, ANN),
        EndSessions(ANN, "era"),
        RenameUser(ANN, "Anna"),
        SetPassword(ANN, "hash", "era"),
        ResetPassword(b"link", "hash", "era", 1, ANN),
        DeleteUser(ANN, "era", erase=False),
    ],
    ids=lambda command: type(command).__name__,
)
async def test_a_change_of_an_account_changes_the_mark_of_its_user_alone(store: SqliteStore, command: Command) -> None:
    gate = LocalGate(1000)
    remembered = Remembered(MemoryCache(store, Feed()), gate)
    before = [(await gate.enter(user)).mark for user in (ANN, BOB)]
    remembered.applied(command, None)
    assert (await gate.enter(ANN)).mark not in ("", before[0])
    assert (await gate.enter(BOB)).mark == before[1]


@pytest.mark.parametrize("change", [Remembered.missed, Remembered.accounts_changed])
async def test_what_was_not_heard_may_have_changed_any_account(
    store: SqliteStore, change: Callable[[Remembered], None]
) -> None:
    gate = LocalGate(1000)
    remembered = Remembered(MemoryCache(store, Feed()), gate)
    before = [(await gate.enter(user)).mark for user in (ANN, BOB)]
    change(remembered)
    for user, mark in zip((ANN, BOB), before, strict=True):
        assert (await gate.enter(user)).mark not in ("", mark)


async def test_after_missing_changes_all_that_is_cached_is_dropped_and_later_the_names_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A post that is on its way then may have the name from before a rename that was missed."""
    done: list[str] = []

    class Cache:
        def forget(self) -> None:
            done.append("all")

        def names_changed(self) -> None:
            done.append("names")

    monkeypatch.setattr(remembered_module, "_IN_FLIGHT_S", 0.0)
    Remembered(cast(MemoryCache, Cache()), LocalGate(1000)).missed()
    assert done == ["all"]
    async with asyncio.timeout(20):
        while done != ["all", "names"]:
            await asyncio.sleep(0)
