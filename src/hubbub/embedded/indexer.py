"""Updates a search index from the store in the background: no write waits for it.

The store notes, in the transaction of each batch, which messages it changed. The index notes, in the transaction that
adds documents, how far it has come. So neither assumes more than the other has, whenever a process is killed.

One step indexes a bounded amount of text, shared among users (embedded.index_shares). The changes that are left over
are noted in the index as waiting, and later steps index them user by user.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from hubbub.chat.errors import Unavailable
from hubbub.chat.ports import Document
from hubbub.embedded.index import Progress
from hubbub.embedded.index_shares import MOST_CHANGES, Change, shared_out

log = logging.getLogger("hubbub.search")

_PAUSE_S = 0.1  # short steps: every request waits while a step holds the GIL
_BEHIND_PAUSE_S = 0.02
_SYNC_S = 5.0
_AFTER_FAULT_S = 2.0


class Changes(Protocol):
    """See embedded.store."""

    def last_change(self) -> int: ...
    def changes(self, after: int) -> tuple[int, list[Change]]: ...
    def documents(self, places: Iterable[tuple[int, int]]) -> list[Document]: ...
    def all_messages(self, after: tuple[int, int]) -> tuple[tuple[int, int], list[Document]]: ...
    def indexed(self, position: int) -> None: ...


class Generation(Protocol):
    """See embedded.index.IndexFile."""

    @property
    def position(self) -> int | None: ...
    def check(self) -> None: ...
    def waiting(self) -> list[Change]: ...
    def add(self, documents: Iterable[Document], progress: Progress | None = None) -> None: ...
    def sync(self) -> None: ...
    def remove(self) -> None: ...


G = TypeVar("G", bound=Generation)


class Generations(Protocol[G]):
    """See embedded.index.SqliteIndex."""

    @property
    def current(self) -> G | None: ...
    def start_anew(self) -> G: ...
    def adopt(self, file: G) -> None: ...
    def noticed(self, file: G, error: sqlite3.Error) -> bool: ...
    def mark_unusable(self, file: G, why: str) -> None: ...


class Indexer(Generic[G]):
    """Updates the index on its own thread. ``fault`` says why it can't; None when it can."""

    def __init__(self, store: Changes, index: Generations[G]) -> None:
        self._store = store
        self._index = index
        self._stopping = threading.Event()
        self._rebuild = threading.Event()
        self.fault: str | None = None
        self._synced = 0.0
        self._checked: G | None = None
        self._thread = threading.Thread(target=self._run, name="search-index")
        self._thread.start()

    def rebuild(self) -> None:
        """Rebuild the index, while searches use the old one."""
        self._rebuild.set()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                more = self._step()
            except (Unavailable, sqlite3.Error) as error:
                self._report(str(error))
                self._stopping.wait(_AFTER_FAULT_S)
                continue
            except Exception as error:  # noqa: BLE001 - without this thread nothing new is found, and nobody would know
                self._report(f"{type(error).__name__}: {error}", error)
                self._stopping.wait(_AFTER_FAULT_S)
                continue
            if self.fault is not None:
                self.fault = None
                log.warning("The search index is being updated again.")
            self._stopping.wait(_BEHIND_PAUSE_S if more else _PAUSE_S)

    def _report(self, why: str, unexpected: Exception | None = None) -> None:
        if why != self.fault:
            self.fault = why
            log.error("The search index can't be updated: %s", why, exc_info=unexpected)

    def _step(self) -> bool:
        """Add the latest changes to the index. Returns whether there were more than a step takes."""
        current = self._index.current
        if current is None or self._rebuild.is_set():
            self._make_anew()
            self._rebuild.clear()
            return False
        try:
            if current is not self._checked:
                self._check(current)
            return current is self._checked and self._follow(current)
        except sqlite3.Error as error:
            if not self._index.noticed(current, error):
                raise
            return False

    def _check(self, found: G) -> None:
        """Check a generation that existed at the start: it must not be damaged, nor be ahead of the store."""
        found.check()
        if (found.position or 0) > self._store.last_change():
            self._index.mark_unusable(found, "it has changes that the database does not have")
        else:
            self._checked = found

    def _follow(self, generation: G) -> bool:
        before = generation.position or 0
        position, new = self._store.changes(before)
        waiting = generation.waiting()
        if position == before and not waiting:
            return False
        chosen = shared_out(waiting + new)
        later = set(new).difference(chosen)
        documents = self._store.documents((each.chat_id, each.number) for each in chosen)
        generation.add(documents, Progress(position, sorted(set(waiting).intersection(chosen)), sorted(later)))
        if time.monotonic() - self._synced >= _SYNC_S:
            generation.sync()
            self._synced = time.monotonic()
            self._store.indexed(position)
        return len(new) >= MOST_CHANGES or len(chosen) < len(waiting) + len(new)

    def _make_anew(self) -> None:
        """Build a new generation: all messages, then the changes made in the meantime. The store keeps these, because
        ``indexed`` is not called with a position beyond the old generation's."""
        began = time.monotonic()
        start = self._store.last_change()
        generation = self._index.start_anew()
        try:
            count = self._fill(generation, start)
        except BaseException:
            generation.remove()
            raise
        if count is None:
            generation.remove()
            return
        self._checked = generation
        self._index.adopt(generation)
        if count:
            log.info("The search index of %d messages was built in %.1f s.", count, time.monotonic() - began)

    def _fill(self, generation: G, start: int) -> int | None:
        """Index all messages. Returns their number; None if it was stopped before the end."""
        place, count = (0, 0), 0
        while not self._stopping.is_set():
            place, documents = self._store.all_messages(place)
            if not documents:
                break
            generation.add(documents)
            count += len(documents)
        if self._stopping.is_set():
            return None
        generation.add([], Progress(start))
        return count
