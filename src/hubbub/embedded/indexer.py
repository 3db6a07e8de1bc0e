"""Updates a search index from the store in the background: no write waits for it.

The store notes, in the transaction of each batch, which messages it changed. The index notes, in the transaction that
adds documents, how far it has come. So neither assumes more than the other has, whenever a process is killed.

One step indexes a bounded amount of text, shared among users (embedded.index_shares). The changes that are left over
are noted in the index as waiting, and later steps index them user by user.

A chat is indexed once it has given more than SMALL numbers, or searching it has taken much work (embedded.scan). Nobody
needs an index for any other: the texts of its changes are not even read.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Generic, Protocol, TypeVar

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.embedded.following import CHANGES_AT_ONCE, Place
from hubbub.embedded.index import Progress
from hubbub.embedded.index_chats import ALL, Joining
from hubbub.embedded.index_shares import MOST_CHANGES, MOST_CHARACTERS, Change, cost, shared_out

log = logging.getLogger("hubbub.search")

SMALL = 2000  # numbers; to read a chat of so many short messages takes 6 ms
_PAUSE_S = 0.1
_BEHIND_PAUSE_S = 0.02
# Where many messages come they gather for longer: with more in a step, the index is written less often, and each
# message costs a third less. But not so many that a step can't take all of them.
_GATHERING_PAUSE_S = 0.4
_MANY = 100
_GATHERED = MOST_CHARACTERS * 3 // 4
_JOINING = MOST_CHARACTERS // 4  # of the text in one step, for the chats that join the index, or more if there is room
_REBUILT_AT_ONCE = 524_288  # characters
_ASKED = 1000  # chats that searches have asked for since the last step; of more, the first are asked for again later
_SYNC_S = 5.0
_AFTER_FAULT_S = 2.0


class Changes(Protocol):
    """See embedded.following."""

    def last_change(self) -> int: ...
    def noted(self, after: int) -> tuple[int, dict[Place, int]]: ...
    def keys(self, chat_ids: Iterable[int]) -> dict[int, ChatKey]: ...
    def changes(self, noted: Mapping[Place, int]) -> tuple[list[Change], dict[Place, Document]]: ...
    def documents(self, places: Iterable[Place]) -> list[Document]: ...
    def of_chats(self, joining: Sequence[Joining], most: float) -> tuple[list[Document], list[Joining]]: ...
    def large_chats(self, after: int, small: int) -> tuple[int, list[Joining]]: ...


class Generation(Protocol):
    """See embedded.index.IndexFile."""

    @property
    def position(self) -> int | None: ...
    def check(self) -> None: ...
    def waiting(self) -> list[Change]: ...
    def reached(self, chat: ChatKey) -> int: ...
    def joining(self) -> list[Joining]: ...
    def add(
        self, documents: Iterable[Document], progress: Progress | None = None, joined: Iterable[Joining] = ()
    ) -> None: ...
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
    """Updates the index on its own thread. ``fault`` says why it can't; None when it can. ``indexed`` is told how far
    the index is durable, see SqliteStore.indexed.
    """

    def __init__(
        self, store: Changes, index: Generations[G], indexed: Callable[[int], None], small: int = SMALL
    ) -> None:
        self._store = store
        self._index = index
        self._indexed = indexed
        self._small = small
        self._asked: deque[Joining] = deque(maxlen=_ASKED)
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

    def ask(self, chat_id: int, chat: ChatKey) -> None:
        """Index this chat, however small. On any thread. It may be forgotten: then later searches ask again."""
        self._asked.append(Joining(chat_id, chat))

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                pause = self._step()
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
            self._stopping.wait(pause)

    def _report(self, why: str, unexpected: Exception | None = None) -> None:
        if why != self.fault:
            self.fault = why
            log.error("The search index can't be updated: %s", why, exc_info=unexpected)

    def _step(self) -> float:
        """Add the latest changes to the index. Returns how many seconds later to look for more."""
        current = self._index.current
        if current is None or self._rebuild.is_set():
            self._make_anew()
            self._rebuild.clear()
            return _PAUSE_S
        try:
            if current is not self._checked:
                self._check(current)
            return self._follow(current) if current is self._checked else _PAUSE_S
        except sqlite3.Error as error:
            if not self._index.noticed(current, error):
                raise
            return _PAUSE_S

    def _check(self, found: G) -> None:
        """Check a generation that existed at the start: it must not be damaged, nor be ahead of the store."""
        found.check()
        if (found.position or 0) > self._store.last_change():
            self._index.mark_unusable(found, "it has changes that the database does not have")
        else:
            self._checked = found

    def _follow(self, generation: G) -> float:
        before = generation.position or 0
        position, noted = self._store.noted(before)
        waiting = generation.waiting()
        joining = generation.joining()
        asked = {self._asked.popleft() for _ in range(len(self._asked))}
        if position == before and not (waiting or joining or asked):
            return _PAUSE_S
        news, begin = self._indexed_of(generation, noted, waiting)
        begin += [each for each in asked if not generation.reached(each.chat)]
        new, at_hand = self._store.changes(news)
        chosen = shared_out(waiting + new, MOST_CHARACTERS - _JOINING if joining else MOST_CHARACTERS)
        left_over = len(chosen) < len(waiting) + len(new)
        later = sorted(set(new).difference(chosen)) if left_over else []
        taken = sorted(set(waiting).intersection(chosen)) if waiting else []
        documents = self._documents(chosen, at_hand)
        # These are read after the position, so a chat that has joined has all changes up to it.
        theirs, joined = self._store.of_chats(joining, MOST_CHARACTERS - sum(cost(each.size) for each in chosen))
        generation.add(documents + theirs, Progress(position, taken, later), begin + joined)
        if time.monotonic() - self._synced >= _SYNC_S:
            generation.sync()
            self._synced = time.monotonic()
            self._indexed(position)
        behind = position - before >= CHANGES_AT_ONCE or len(noted) >= MOST_CHANGES
        # Until a chat has joined, searches read it, and in a long one only the newest messages.
        join = bool(begin) or any(each.reached != ALL for each in joined) or len(joined) < len(joining)
        return pause_after(new, more=left_over or behind or join)

    def _indexed_of(
        self, generation: G, noted: Mapping[Place, int], waiting: Iterable[Change]
    ) -> tuple[dict[Place, int], list[Joining]]:
        """Those of the noted changes that the index needs, and the chats which join it from now on.

        It needs no changes of a chat that it does not have, and none of messages that a joining chat brings in later.
        """
        highest: dict[int, int] = {}
        for chat_id, number in chain(noted, ((each.chat_id, each.number) for each in waiting)):
            if number > highest.get(chat_id, 0):
                highest[chat_id] = number
        keys = self._store.keys(highest)
        reached = {chat_id: generation.reached(key) for chat_id, key in keys.items()}
        begin = [
            Joining(chat_id, key)
            for chat_id, key in keys.items()
            if highest[chat_id] > self._small and not reached[chat_id]
        ]
        return {place: at for place, at in noted.items() if place[1] <= reached[place[0]]}, begin

    def _documents(self, changes: Sequence[Change], at_hand: Mapping[Place, Document]) -> list[Document]:
        """The documents of the changes, those of a chat in a row."""
        places = {(each.chat_id, each.number) for each in changes}
        documents = [document for place, document in at_hand.items() if place in places]
        return documents + self._store.documents(places.difference(at_hand))

    def _make_anew(self) -> None:
        """Build a new generation: all chats that are not small, then the changes made in the meantime. The store keeps
        these, because ``indexed`` is not called with a position beyond the old generation's."""
        began, first = time.monotonic(), self._index.current is None
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
        if count or not first:  # a new service has none
            log.info("The search index of %d messages was built in %.1f s.", count, time.monotonic() - began)

    def _fill(self, generation: G, start: int) -> int | None:
        """Index all chats that are not small. Returns the number of their messages; None if it was stopped before the
        end."""
        after, count, more = 0, 0, True
        while more and not self._stopping.is_set():
            after, large = self._store.large_chats(after, self._small)
            generation.add([], joined=large)
            more = after > 0
        while (joining := generation.joining()) and not self._stopping.is_set():
            documents, joined = self._store.of_chats(joining, _REBUILT_AT_ONCE)
            generation.add(documents, joined=joined)
            count += len(documents)
        if self._stopping.is_set():
            return None
        generation.add([], Progress(start))
        return count


def pause_after(new: Sequence[Change], *, more: bool) -> float:
    """How many seconds after a step with these new changes the next one begins; there may be ``more`` already."""
    if more or len(new) >= MOST_CHANGES:
        return _BEHIND_PAUSE_S
    many = len(new) >= _MANY and sum(each.size for each in new) <= _GATHERED
    return _GATHERING_PAUSE_S if many else _PAUSE_S
