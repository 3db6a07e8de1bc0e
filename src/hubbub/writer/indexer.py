"""Keeps a search index up with the store, behind the writes: no write waits for it.

The store notes, in the transaction of each batch, which messages it changed; the index notes, in the transaction of
what it takes in, how far it has come. So neither can be ahead of what the other believes, whatever is killed when.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from hubbub.chat.errors import Unavailable
from hubbub.chat.ports import Document

log = logging.getLogger("hubbub.search")

_PAUSE_S = 0.1  # little and often: what it holds the GIL for, every request waits for
_SYNC_S = 5.0
_AFTER_FAULT_S = 2.0


class Changes(Protocol):
    """See stores.sqlite."""

    def last_change(self) -> int: ...
    def changes(self, after: int) -> tuple[int, list[Document]]: ...
    def all_messages(self, after: tuple[int, int]) -> tuple[tuple[int, int], list[Document]]: ...
    def indexed(self, position: int) -> None: ...


class Outbox(Protocol):
    """See stores.mysql."""

    def index_changes(self, take: Callable[[list[Document]], None]) -> int: ...


class Generation(Protocol):
    """See search.sqlite.IndexFile."""

    @property
    def position(self) -> int | None: ...
    def add(self, documents: Iterable[Document], position: int | None = None) -> None: ...
    def sync(self) -> None: ...
    def remove(self) -> None: ...


G = TypeVar("G", bound=Generation)


class Generations(Protocol[G]):
    """See search.sqlite.SqliteIndex."""

    @property
    def current(self) -> G | None: ...
    def start_anew(self) -> G: ...
    def adopt(self, file: G) -> None: ...


class Indexer(Generic[G]):
    """A thread of its own. ``fault`` says why the index can't keep up; None when it can."""

    def __init__(self, store: Changes, index: Generations[G]) -> None:
        self._store = store
        self._index = index
        self._stopping = threading.Event()
        self._rebuild = threading.Event()
        self.fault: str | None = None
        self._synced = 0.0
        self._thread = threading.Thread(target=self._run, name="search-index")
        self._thread.start()

    def rebuild(self) -> None:
        """Make the index anew, while the one there is goes on answering."""
        self._rebuild.set()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except (Unavailable, sqlite3.Error) as error:
                self._report(str(error))
                self._stopping.wait(_AFTER_FAULT_S)
                continue
            if self.fault is not None:
                self.fault = None
                log.warning("The search index keeps up again.")
            self._stopping.wait(_PAUSE_S)

    def _report(self, why: str) -> None:
        if why != self.fault:
            self.fault = why
            log.error("The search index can't keep up: %s", why)

    def _step(self) -> None:
        """Take in what has changed."""
        current = self._index.current
        if current is None or self._rebuild.is_set():
            self._make_anew()
            self._rebuild.clear()
        else:
            self._follow(current)

    def _follow(self, generation: G) -> None:
        before = generation.position or 0
        position, documents = self._store.changes(before)
        if position == before:
            return
        generation.add(documents, position)
        if time.monotonic() - self._synced >= _SYNC_S:
            generation.sync()
            self._synced = time.monotonic()
            self._store.indexed(position)

    def _make_anew(self) -> None:
        """All messages, then what has changed meanwhile; changes are kept until then, as ``indexed`` is not called
        with a position beyond the old generation's."""
        began = time.monotonic()
        start = self._store.last_change()
        generation = self._index.start_anew()
        place, count = (0, 0), 0
        while not self._stopping.is_set():
            place, documents = self._store.all_messages(place)
            if not documents:
                break
            generation.add(documents)
            count += len(documents)
        if self._stopping.is_set():
            generation.remove()
            return
        generation.add([], start)
        self._index.adopt(generation)
        if count:
            log.info("The search index of %d messages was made in %.1f s.", count, time.monotonic() - began)


async def keep_index(outbox: Outbox, add: Callable[[Sequence[Document]], None]) -> None:
    """Brings what a cluster's store has noted to a search server, whenever that can be reached. Runs until cancelled;
    several processes may run it at once.
    """
    fault = ""
    while True:
        try:
            busy = await asyncio.to_thread(outbox.index_changes, add)
        except Exception as error:  # noqa: BLE001 - whatever it is, what was noted stays noted, and is tried again
            if str(error) != fault:
                fault = str(error)
                log.error("The search server can't be kept up to date: %s", error)
            await asyncio.sleep(_AFTER_FAULT_S)
            continue
        if fault:
            fault = ""
            log.warning("The search server is kept up to date again.")
        if not busy:
            await asyncio.sleep(_PAUSE_S)
