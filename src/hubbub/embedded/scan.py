"""Finds the candidates of a search among the messages that the index does not have, by reading them.

It finds what an index would, in the texts as they are now: a new message, an edit or a delete counts at once. There are
few such messages in a chat, unless the index takes them in just now (embedded.index_chats). Once the searches of a chat
have taken as much work as it takes to index them, as there are many or the texts are long, the index is asked to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Candidates
from hubbub.chat.search import CANDIDATES, Query, Sieve
from hubbub.embedded.index import SqliteIndex
from hubbub.embedded.index_chats import ALL, Part
from hubbub.embedded.store import SqliteStore

_READ = 200  # messages at a time: two million characters where all are as long as can be
_SIEVED = 20_000  # characters at a time, or one text; where they take longest, 30 ms
# Work is counted in steps of some 10 ns, see chat.search.Sieve.
STEPS = 10_000_000  # of one look: 0.1 s
MUCH = 2_000_000  # of all looks at a chat: to index a thousand short messages takes as long
_A_MESSAGE = 200
_CHATS = 10_000


class Scan:
    """Finds what the index has, and reads the rest in the store. ``ask`` is called with a chat that had better be
    indexed. Every method may be called on any thread."""

    def __init__(self, store: SqliteStore, index: SqliteIndex, ask: Callable[[Part], None]) -> None:
        self._store = store
        self._index = index
        self._ask = ask
        self._lock = threading.Lock()
        self._work: dict[ChatKey, int] = {}

    def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Candidates:
        """As chat.ports.SearchIndex has it, but it blocks. Not ``whole`` when the steps ran out."""
        # The index comes first: of what it takes in meanwhile, all is above the ``reached`` that was read, and scanned.
        numbers, reached = self._index.candidates(chat, query, typos=typos, limit=limit, below=below)
        if (below is not None and below <= reached + 1) or reached == ALL:
            return Candidates(numbers)
        above = self._above(reached, chat, query, typos=typos, limit=limit, below=below)
        return Candidates((above.numbers + numbers)[:limit], above.whole)

    def _above(
        self, reached: int, chat: ChatKey, query: Query, *, typos: bool, limit: int, below: int | None
    ) -> Candidates:
        """The candidates above ``reached``."""
        sieve = Sieve(query, typos=typos)
        found: list[int] = []
        chat_id, looked_at, steps, whole = 0, 0, 0, True
        next_below, more = ALL if below is None else below, True
        while more and whole and len(found) < limit:
            id, numbers, lines = self._store.scanned(chat, reached, next_below, _READ)
            if not numbers:
                break
            chat_id = id
            done = 0
            for texts in _portions(lines.split("\n")):
                if len(found) >= limit:
                    break
                whole = steps <= STEPS
                if not whole:
                    break
                found += [numbers[done + at] for at in sieve.among(texts)]
                done += len(texts)
                looked_at += len(texts)
                steps = sieve.steps + looked_at * _A_MESSAGE
            next_below, more = min(numbers), len(numbers) == _READ
        if self._is_much(chat, steps):
            self._ask(Part(chat_id, chat))
        return Candidates(sorted(found, reverse=True)[:limit], whole)

    def _is_much(self, chat: ChatKey, steps: int) -> bool:
        """Count the steps of a look at the chat. Returns whether all looks together have taken much."""
        with self._lock:
            if len(self._work) >= _CHATS:
                self._work.clear()
            work = self._work.pop(chat, 0) + steps
            if 0 < work <= MUCH:
                self._work[chat] = work
            return work > MUCH


def _portions(texts: list[str]) -> Iterator[list[str]]:
    """The texts in portions of some _SIEVED characters, so that the work is bounded between them."""
    portion: list[str] = []
    size = 0
    for text in texts:
        portion.append(text)
        size += len(text)
        if size >= _SIEVED:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
