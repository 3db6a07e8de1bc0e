"""The search index in a process of its own (embedded.child): it indexes, and finds the candidates of searches, in the
index and by reading what that does not have (embedded.scan).

``search`` is the life of that process, ``SearchProcess`` is what a process that serves knows of it. Requests are
numbered and answered in any order. The process says by itself when its fault changes, and, to the first of those that
serve, how far the index has come.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import select
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
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
from hubbub.embedded.frames import Frames, Logged, Unsound, frame
from hubbub.embedded.index import SqliteIndex
from hubbub.embedded.indexer import Indexer
from hubbub.embedded.scan import Scan
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


def search(channels: Sequence[socket.socket], folder: Path, data_set: int) -> None:
    """Index, and search for the processes that serve, until the first of them has closed its end. The database must be
    there, with the current schema.
    """
    sender = Sender(channels[0])
    store = SqliteStore(folder / "hubbub.db", lambda fault: sender.send(Unsound(fault)))
    index = SqliteIndex(folder, data_set)
    indexer = Indexer(store.following, index, lambda position: sender.send(Progressed(position)))
    try:
        Searching(channels, sender, store, index, indexer, Scan(store, index, indexer.ask)).run()
    finally:
        indexer.close()
        index.close()
        store.close()


class Client:
    """A process that serves, and the messages that it does not take yet. ``write`` sends one message.

    A process that takes nothing must not hold up the answers to the others. So a message is written only when the
    system says that the socket takes more: then three quarters of its buffer are free, some 150 KB, and no message is
    longer than the 5 KB of a thousand candidates. What waits is bounded by what the process has asked: no more than
    AT_ONCE searches (chat.search_limiter), and lags.
    """

    def __init__(self, channel: socket.socket, write: Callable[[msgspec.Struct], None] | None = None) -> None:
        self._channel = channel
        self._write = write or self._write_alone
        self._frames = Frames()
        self._turn = threading.Lock()
        self._waiting: deque[msgspec.Struct] = deque()
        self._told: str | None = _STARTING
        self._gone = False

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def waits(self) -> bool:
        """Whether messages wait until it takes more."""
        return bool(self._waiting)

    def read(self) -> list[bytes] | None:
        """The contents of the next frames; None when it has closed its end."""
        try:
            data = self._channel.recv(_READ)
        except ConnectionResetError:
            return None
        return self._frames.take(data) if data else None

    def tell(self, fault: str | None) -> None:
        """Send the fault if it has changed; a process that takes nothing is told the current one when it does."""
        if fault != self._told and not self._waiting:
            self._told = fault
            self.send(Fault(fault))

    def send(self, message: msgspec.Struct) -> None:
        """Send the message, or keep it for ``flush``. On any thread."""
        with self._turn:
            if not self._gone:
                self._waiting.append(message)
                self._flush()

    def flush(self) -> None:
        """Send what waits, as far as it is taken."""
        with self._turn:
            self._flush()

    def close(self) -> None:
        with self._turn:
            self._leave()
            self._channel.close()

    def _flush(self) -> None:
        try:
            while self._waiting and select.select([], [self], [], 0)[1]:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except (BrokenPipeError, ConnectionResetError):  # it has gone, as ``read`` will say
            self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._waiting.clear()

    def _write_alone(self, message: msgspec.Struct) -> None:
        """Write to a socket that the log is not sent on. A Sender would wait until the log is taken."""
        self._channel.sendall(frame(msgspec.msgpack.encode(message)))


class Searching:
    """Answers the requests that come on the sockets, on threads. ``sender`` sends on the first, as the log does."""

    def __init__(
        self,
        channels: Sequence[socket.socket],
        sender: Sender,
        store: SqliteStore,
        index: SqliteIndex,
        indexer: Indexer[Any],
        scan: Scan,
    ) -> None:
        self._first = Client(channels[0], sender.send)
        self._clients = [self._first, *map(Client, channels[1:])]
        self._store = store
        self._index = index
        self._indexer = indexer
        self._scan = scan
        self._decode = msgspec.msgpack.Decoder(_Request).decode

    def run(self) -> None:
        """Answer until the first has closed its end. Another one that closes is forgotten."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="search") as threads:
            while True:
                fault = self._index.fault or self._indexer.fault
                for client in self._clients:
                    client.tell(fault)
                waiting = [client for client in self._clients if client.waits]
                readable, writable, _ = select.select(self._clients, waiting, [], _FAULT_S)
                for client in writable:
                    client.flush()
                for client in readable:
                    contents = client.read()
                    if contents is not None:
                        for content in contents:
                            self._answer(client, self._decode(content), threads)
                    elif client is self._first:
                        return
                    else:
                        self._clients.remove(client)
                        client.close()

    def _answer(self, client: Client, request: _Request, threads: ThreadPoolExecutor) -> None:
        if isinstance(request, Rebuild):
            self._indexer.rebuild()
        elif isinstance(request, Find):
            threads.submit(self._guarded, client, self._find, request)
        else:
            threads.submit(self._guarded, client, self._lag, request)

    @staticmethod
    def _guarded(client: Client, answer: Callable[[Any], Found | Lag], request: Find | AskLag) -> None:
        try:
            client.send(answer(request))
        except BaseException:
            # Whoever waits for the answer would wait for ever.
            log.critical("A search failed; the process ends.", exc_info=True)
            os._exit(1)

    def _find(self, request: Find) -> Found:
        try:
            found = self._scan.candidates(
                request.chat, request.query, typos=request.typos, limit=request.limit, below=request.below
            )
        except Unavailable as error:
            return Found(request.id, [], fault=error.sentence, retry_after=error.retry_after)
        except Exception:
            log.exception("A search failed.")  # this one only: the service goes on
            return Found(request.id, [], fault=_FAILED, retry_after=5)
        return Found(request.id, found.numbers, found.whole)

    def _lag(self, request: AskLag) -> Lag:
        file = self._index.current
        seconds: float | None = None
        with suppress(Unavailable, sqlite3.Error):
            behind = self._store.index_lag(file.position if file else 0)
            since = file.waiting_since() if file else None
            seconds = behind if since is None else max(behind, time.time() - since / 1000)
        return Lag(request.id, seconds)


class SearchProcess:
    """See chat.ports.SearchIndex. In the first process that serves, ``indexed`` is told how far the index has come (see
    SqliteStore.indexed), and ``unsound`` why the database is not usable, if the process finds that.
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
