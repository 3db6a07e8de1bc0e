"""The search index in a process of its own (embedded.child): it indexes, and finds the candidates of searches.

``search`` is the life of that process, ``SearchProcess`` is what the process that serves knows of it. Requests are
numbered and answered in any order. The process says by itself when its fault changes, and how far the index has come.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import select
import socket
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Candidates
from hubbub.chat.search import CANDIDATES, Query
from hubbub.embedded.child import Channel, Sender, write_log
from hubbub.embedded.frames import Frames, Logged, Unsound
from hubbub.embedded.index import SqliteIndex
from hubbub.embedded.indexer import Indexer
from hubbub.embedded.store import SqliteStore

log = logging.getLogger("hubbub.search")

_FAULT_S = 0.1  # how often the process looks whether its fault has changed
_THREADS = 2
_READ = 256 * 1024
_LAG_S = 2.0  # how long /metrics waits for the process
_STARTING = "The search index is being opened."
_FAILED = "The search failed. If it happens again, the service's log says why."


class Find(msgspec.Struct, tag=True, array_like=True):
    """A request for candidates, see chat.ports.SearchIndex."""

    id: int
    chat: ChatKey
    query: Query
    typos: bool
    limit: int
    below: int | None


class AskLag(msgspec.Struct, tag=True, array_like=True):
    """A request for the index's lag."""

    id: int


class Rebuild(msgspec.Struct, tag=True, array_like=True):
    """Asks for a new index, while searches use the old one."""


class Found(msgspec.Struct, tag=True, array_like=True):
    """The answer to Find: the candidates, or why they can't be had now and when to try again."""

    id: int
    numbers: list[int]
    whole: bool = True
    fault: str | None = None
    retry_after: float = 0.0


class Lag(msgspec.Struct, tag=True, array_like=True):
    """The answer to AskLag, in seconds; None while the database or the index can't be read."""

    id: int
    seconds: float | None


class Fault(msgspec.Struct, tag=True, array_like=True):
    """Why searches or the updates of the index are impossible now; None when they are possible."""

    fault: str | None


class Progressed(msgspec.Struct, tag=True, array_like=True):
    """The index has durably stored all changes up to the position."""

    position: int


_Request: TypeAlias = Find | AskLag | Rebuild
_Message: TypeAlias = Found | Lag | Fault | Progressed | Unsound | Logged


def search(channel: socket.socket, folder: Path, data_set: int) -> None:
    """Index and search until the other end is closed. The database must be there, with the current schema."""
    sender = Sender(channel)
    store = SqliteStore(folder / "hubbub.db", lambda fault: sender.send(Unsound(fault)))
    index = SqliteIndex(folder, data_set)
    indexer = Indexer(store.following, index, lambda position: sender.send(Progressed(position)))
    try:
        Searching(channel, sender, store, index, indexer).run()
    finally:
        indexer.close()
        index.close()
        store.close()


class Searching:
    """Answers the requests that come on the socket, on threads."""

    def __init__(
        self, channel: socket.socket, sender: Sender, store: SqliteStore, index: SqliteIndex, indexer: Indexer[Any]
    ) -> None:
        self._channel = channel
        self._sender = sender
        self._store = store
        self._index = index
        self._indexer = indexer
        self._decode = msgspec.msgpack.Decoder(_Request).decode
        self._fault: str | None = _STARTING

    def run(self) -> None:
        frames = Frames()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="search") as threads:
            while True:
                self._tell_fault()
                if not select.select([self._channel], [], [], _FAULT_S)[0]:
                    continue
                data = self._channel.recv(_READ)
                if not data:
                    return
                for content in frames.take(data):
                    self._answer(self._decode(content), threads)

    def _tell_fault(self) -> None:
        fault = self._index.fault or self._indexer.fault
        if fault != self._fault:
            self._fault = fault
            self._sender.send(Fault(fault))

    def _answer(self, request: _Request, threads: ThreadPoolExecutor) -> None:
        if isinstance(request, Rebuild):
            self._indexer.rebuild()
        elif isinstance(request, Find):
            threads.submit(self._guarded, self._find, request)
        else:
            threads.submit(self._guarded, self._lag, request)

    @staticmethod
    def _guarded(answer: Callable[[Any], None], request: Find | AskLag) -> None:
        try:
            answer(request)
        except BaseException:
            # Whoever waits for the answer would wait for ever.
            log.critical("A search failed; the process ends.", exc_info=True)
            os._exit(1)

    def _find(self, request: Find) -> None:
        try:
            found = self._index.candidates(
                request.chat, request.query, typos=request.typos, limit=request.limit, below=request.below
            )
        except Unavailable as error:
            answer = Found(request.id, [], fault=error.sentence, retry_after=error.retry_after)
        except Exception:
            log.exception("A search failed.")  # this one only: the service goes on
            answer = Found(request.id, [], fault=_FAILED, retry_after=5)
        else:
            answer = Found(request.id, found.numbers, found.whole)
        self._sender.send(answer)

    def _lag(self, request: AskLag) -> None:
        file = self._index.current
        seconds: float | None = None
        with suppress(Unavailable, sqlite3.Error):
            behind = self._store.index_lag(file.position if file else 0)
            since = file.waiting_since() if file else None
            seconds = behind if since is None else max(behind, time.time() - since / 1000)
        self._sender.send(Lag(request.id, seconds))


class SearchProcess:
    """See chat.ports.SearchIndex. ``indexed`` is told how far the index has come (see SqliteStore.indexed), and
    ``unsound`` why the database is not usable, if the process finds that.
    """

    def __init__(self, indexed: Callable[[int], None], unsound: Callable[[str], None]) -> None:
        self._indexed = indexed
        self._unsound = unsound
        self._channel = Channel("search", self._take)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Message).decode
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._closing = False
        self.fault: str | None = _STARTING

    async def connect(self, channel: socket.socket) -> None:
        """Ask the process that has the other end of the socket."""
        await self._channel.connect(channel)

    async def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Candidates:
        found: Found = await self._ask(lambda id: Find(id, chat, query, typos, limit, below))
        if found.fault is not None:
            raise Unavailable(found.fault, retry_after=found.retry_after)
        return Candidates(found.numbers, found.whole)

    async def lag(self) -> float | None:
        """How many seconds the oldest change has waited for the index; None while the database or the index can't be
        read, or the process does not answer."""
        try:
            async with asyncio.timeout(_LAG_S):
                answer: Lag = await self._ask(AskLag)
        except TimeoutError:
            return None
        return answer.seconds

    def rebuild(self) -> None:
        """Rebuild the index, while searches use the old one."""
        self._channel.send(self._encode(Rebuild()))

    async def close(self) -> None:
        self._closing = True
        await self._channel.close()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Unavailable("The service is shutting down."))

    async def _ask(self, request: Callable[[int], Find | AskLag]) -> Any:
        if self._closing:
            raise Unavailable("The service is shutting down.")
        id = next(self._ids)
        answer = self._asked[id] = self._loop.create_future()
        try:
            self._channel.send(self._encode(request(id)))
            return await answer
        finally:
            del self._asked[id]

    def _take(self, content: bytes) -> None:
        message = self._decode(content)
        if isinstance(message, Found | Lag):
            asked = self._asked.get(message.id)  # None when the request was given up
            if asked is not None and not asked.done():
                asked.set_result(message)
        elif isinstance(message, Progressed):
            self._indexed(message.position)
        elif isinstance(message, Unsound):
            self._unsound(message.fault)
        elif isinstance(message, Fault):
            self.fault = message.fault
        else:
            write_log(message)
