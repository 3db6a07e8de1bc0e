"""The search index as the process that serves uses it, with a thread of the test instead of the other process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from hubbub.embedded.child import Sender
from hubbub.embedded.index import SqliteIndex
from hubbub.embedded.search_process import Searching, SearchProcess
from tests.committing import run_beside


@asynccontextmanager
async def asked_over_a_socket(index: SqliteIndex) -> AsyncIterator[SearchProcess]:
    """The index as the process that serves sees it. The process that has it is a thread of the test."""
    ours, theirs = socket.socketpair()
    indexer = SimpleNamespace(fault=None)
    run_beside([theirs], Searching(theirs, Sender(theirs), cast(Any, None), index, cast(Any, indexer)).run)
    process = SearchProcess(lambda _: None, lambda _: None)
    await process.connect(ours)
    yield process
    await process.close()
