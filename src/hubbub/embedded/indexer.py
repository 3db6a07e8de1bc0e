"""Updates a search index from the store in the background: no write waits for it.

The store notes, in the transaction of each batch, which messages it changed. The index notes, in the transaction that
adds documents, how far it has come. So neither assumes more than the other has, whenever a process is killed.

One step indexes a bounded amount of text, shared among users (embedded.index_shares). The changes that are left over
are noted in the index as waiting, and later steps index them user by user.

The index takes in the messages of a chat once it has given more than SMALL numbers above those that the index has, or
once searching it has taken much work (embedded.scan). Until then the texts of new messages are not even read.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
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
from hubbub.embedded.index_chats import Part
from hubbub.embedded.index_shares import MOST_CHANGES, MOST_CHARACTERS, Change, cost, shared_out

log = logging.getLogger("hubbub.search")

SMALL = 2000  # numbers; to read so many short messages takes 6 ms
_PAUSE_S = 0.1
_BEHIND_PAUSE_S = 0.02
# Where many messages come they gather for longer: with more in a step, the index is written less often, and each
# message costs a third less. But not so many that a step can't take all of them.
_GATHERING_PAUSE_S = 0.4
_MANY = 100
_GATHERED = MOST_CHARACTERS * 3 // 4
_DUE = MOST_CHARACTERS // 4  # of the text in one step, for the chats that are due, or more if there is room
# After a step that takes in some of what is due, the next one that does waits for so many times its length: many chats
# may be due at once, and the searches find what is not taken in yet. Not so just after a search that read too much.
_RESTS = 2
_LONGEST_REST_S = 5.0  # a step may have been held up, by a stall of the disk or as the process was stopped
_HURRY_S = 2.0
_REBUILT_AT_ONCE = 524_288  # characters
_ASKED = 1000  # chats that searches have asked for since the last step; of more, the first are asked for again later
_SYNC_S = 5.0
_NICE = 10  # more than the process has: no request waits for this thread
_AFTER_FAULT_S = 2.0


class Changes(Protocol):
    """See embedded.following."""

    def last_change(self) -> int: ...
    def noted(self, after: int) -> tuple[int, dict[Place, int]]: ...
    def keys(self, chat_ids: Iterable[int]) -> dict[int, ChatKey]: ...
    def changes(self, noted: Mapping[Place, int]) -> tuple[list[Change], dict[Place, Document]]: ...
    def documents(self, places: Iterable[Place]) -> list[Document]: ...
    def of_chats(self, due: Sequence[Part], most: float) -> tuple[list[Document], list[Part]]: ...
    def large_chats(self, after: int, small: int) -> tuple[int, list[Part]]: ...


class Generation(Protocol):
    """See embedded.index.IndexFile."""

    @property
    def position(self) -> int | None: ...
    def check(self) -> None: ...
    def waiting(self) -> list[Change]: ...
    def reached(self, chat: ChatKey) -> int: ...
    def due(self) -> list[Part]: ...
    def add(
        self,
        documents: Iterable[Document],
        progress: Progress | None = None,
        *,
        due: Iterable[Part] = (),
        parts: Iterable[Part] = (),
        gone: Iterable[ChatKey] = (),
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
        self._asked: deque[Part] = deque(maxlen=_ASKED)
        self._stopping = threading.Event()
        self._rebuild = threading.Event()
        self.fault: str | None = None
        self._synced = 0.0
        self._rest_until = 0.0
        self._hurry_until = 0.0
        self._unsynced = True  # whether something was added since
        self._checked: G | None = None
        self._thread = threading.Thread(target=self._run, name="search-index")
        self._thread.start()

    def rebuild(self) -> None:
        """Rebuild the index, while searches use the old one."""
        self._rebuild.set()

    def ask(self, chat: Part) -> None:
        """Take in this chat, however little there is. On any thread. It may be forgotten: then later searches ask
        again."""
        self._asked.append(chat)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere this would be the whole process
            os.nice(_NICE)
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
        began = time.monotonic()
        before = generation.position or 0
        position, noted = self._store.noted(before)
        waiting = generation.waiting()
        asked = {self._asked.popleft() for _ in range(len(self._asked))}
        hurry = bool(asked) or began < self._hurry_until
        due = generation.due() if hurry or began >= self._rest_until else []
        if position == before and not (waiting or due or asked):
            self._sync(generation)
            return _PAUSE_S
        keys = self._store.keys({chat_id for chat_id, _ in noted} | {each.chat_id for each in waiting})
        gone = [keys[chat_id] for chat_id, number in noted if not number]
        news, begin = self._indexed_of(generation, keys, noted, waiting)
        begin += asked
        new, at_hand = self._store.changes(news)
        chosen = shared_out(waiting + new, MOST_CHARACTERS - _DUE if due else MOST_CHARACTERS)
        left_over = len(chosen) < len(waiting) + len(new)
        later = sorted(set(new).difference(chosen)) if left_over else []
        taken = sorted(set(waiting).intersection(chosen)) if waiting else []
        documents = self._documents(chosen, at_hand)
        # These are read after the position, so what the index then has of these chats has all changes up to it.
        theirs, parts = self._store.of_chats(due, MOST_CHARACTERS - sum(cost(each.size) for each in chosen))
        progress = Progress(position, taken, later)
        generation.add(documents + theirs, progress, due=begin, parts=parts, gone=gone)
        self._unsynced = True
        self._sync(generation)
        behind = position - before >= CHANGES_AT_ONCE or len(noted) >= MOST_CHANGES
        now = time.monotonic()
        if asked:  # this step only notes that their chats are due
            self._hurry_until = now + _HURRY_S
        if due:
            self._rest_until = now if hurry else now + min(_RESTS * (now - began), _LONGEST_REST_S)
        pause = pause_after(new, more=left_over or behind)
        more_due = bool(begin) or any(each.more for each in parts) or len(parts) < len(due)
        return min(pause, max(self._rest_until - now, _BEHIND_PAUSE_S)) if more_due else pause

    def _sync(self, generation: G) -> None:
        """Make what was added durable, now and then: also when nothing more comes, or a text that was erased would stay
        in the file, and the changes in the store."""
        if self._unsynced and time.monotonic() - self._synced >= _SYNC_S:
            generation.sync()
            self._synced = time.monotonic()
            self._unsynced = False
            self._indexed(generation.position or 0)

    def _indexed_of(
        self, generation: G, keys: Mapping[int, ChatKey], noted: Mapping[Place, int], waiting: Iterable[Change]
    ) -> tuple[dict[Place, int], list[Part]]:
        """Those of the noted changes that the index needs: none of messages above what it has. And the chats that are
        due from now on."""
        highest: dict[int, int] = {}
        for chat_id, number in chain(noted, ((each.chat_id, each.number) for each in waiting)):
            if number > highest.get(chat_id, 0):
                highest[chat_id] = number
        reached = {chat_id: generation.reached(key) for chat_id, key in keys.items()}
        begin = [
            Part(chat_id, keys[chat_id])
            for chat_id, number in highest.items()
            if number > reached[chat_id] + self._small
        ]
        return {place: at for place, at in noted.items() if 0 < place[1] <= reached[place[0]]}, begin

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
        self._unsynced = True
        if count or not first:  # a new service has none
            log.info("The search index of %d messages was built in %.1f s.", count, time.monotonic() - began)

    def _fill(self, generation: G, start: int) -> int | None:
        """Index all chats that are not small. Returns the number of their messages; None if it was stopped before the
        end."""
        after, count, more = 0, 0, True
        while more and not self._stopping.is_set():
            after, large = self._store.large_chats(after, self._small)
            generation.add([], due=large)
            more = after > 0
        while (due := generation.due()) and not self._stopping.is_set():
            documents, parts = self._store.of_chats(due, _REBUILT_AT_ONCE)
            generation.add(documents, parts=parts)
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
