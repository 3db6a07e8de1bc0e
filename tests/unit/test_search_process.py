"""The search process as the process that serves sees it, when something is wrong with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Candidates
from hubbub.chat.search import parse
from hubbub.embedded.search_process import SearchProcess
from tests.searching import asked_over_a_socket


async def test_a_search_that_fails_is_refused_and_the_next_is_answered() -> None:
    outcomes: Iterator[Exception | Candidates] = iter([RuntimeError("unlucky"), Candidates([3, 1])])

    def candidates(*_: object, **__: object) -> Candidates:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    index = cast(Any, SimpleNamespace(fault=None, candidates=candidates))
    async with asked_over_a_socket(index) as process:
        with pytest.raises(Unavailable, match="The search failed"):
            await process.candidates(ChatKey("t", 1), parse("hello"), typos=False)
        found = await process.candidates(ChatKey("t", 1), parse("hello"), typos=False)
    assert found.numbers == [3, 1]


async def test_the_lag_of_a_process_that_does_not_answer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.embedded.search_process._LAG_S", 0.01)
    ours, theirs = socket.socketpair()
    process = SearchProcess(lambda _: None, lambda _: None)
    await process.connect(ours)
    async with asyncio.timeout(20):
        assert await process.lag() is None
    closing = asyncio.create_task(process.close())
    await asyncio.sleep(0)  # it has begun: the process ends because it is asked to
    theirs.close()
    await closing
