"""The search index as the processes that serve use it, with a thread of the test instead of the other process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from hubbub.embedded.child import Sender
from hubbub.embedded.index import SqliteIndex
from hubbub.embedded.search_process import Searching, SearchProcess
from tests.committing import run_beside


def search_beside(index: SqliteIndex, channels: Sequence[socket.socket]) -> None:
    """Answer on these sockets, all of which are closed once the other end of the first is."""
    indexer = cast(Any, SimpleNamespace(fault=None))
    run_beside(channels, Searching(channels, Sender(channels[0]), cast(Any, None), index, indexer).run)


async def connected(channel: socket.socket) -> SearchProcess:
    """What a process that serves with this end of a socket knows of the index."""
    process = SearchProcess(lambda _: None, lambda _: None)
    await process.connect(channel)
    return process


@asynccontextmanager
async def asked_over_a_socket(index: SqliteIndex) -> AsyncIterator[SearchProcess]:
    """The index as the process that serves sees it. The process that has it is a thread of the test."""
    ours, theirs = socket.socketpair()
    search_beside(index, [theirs])
    process = await connected(ours)
    yield process
    await process.close()
