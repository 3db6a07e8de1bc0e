"""The index of the embedded mode: an FTS5 table of trigrams in a database file of its own.

It keeps no text, no positions and no sizes, only which message has which gram; chat.search does the rest. A message's
row is its chat's id in the upper half and its number in the lower, so that a chat is one range of rows, which FTS5 can
go to at once in the list of any gram. Rows are only ever added: what an edit or a delete leaves behind is sorted out
when the candidates' texts are looked at, and goes at the next rebuild.

Statements are few and large, as in stores.sqlite: a batch goes in as one JSON array, so that the C code works through
it without coming back for the GIL.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.chat.search import CANDIDATES, GRAM, TYPO_CANDIDATES, Query, Term, some, spaced

assert GRAM == 3  # noqa: S101 - FTS5's trigram tokenizer makes no others

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS chats (
        id     INTEGER PRIMARY KEY,
        token  TEXT NOT NULL,
        number INTEGER NOT NULL,
        UNIQUE (token, number)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS state (only INTEGER PRIMARY KEY CHECK (only = 1), position INTEGER NOT NULL) STRICT;
    CREATE VIRTUAL TABLE IF NOT EXISTS grams USING fts5(
        text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
    );
"""
_ADD = (
    "INSERT INTO grams (rowid, text) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
)
_FIND = "SELECT rowid FROM grams WHERE grams MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT ?"
_CHAT = "SELECT id FROM chats WHERE token = ? AND number = ?"
_NUMBER_BITS = 32
_KNOWN_CHATS = 100_000
_THREADS = 2


class IndexFile:
    """One generation of the index. ``add`` belongs to one thread; ``find`` may be called on any.

    Invariant: with a ``position``, all the changes of the store up to it are in the file; both are written in one
    transaction. Without one the file is still being filled, and not to be relied on.
    """

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises sqlite3.Error when it is no index."""
        self.path = path
        self._writing = self._connect()
        self._writing.executescript(_SCHEMA)
        self._ids: dict[ChatKey, int] = {}

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16000")
        return connection

    @property
    def position(self) -> int | None:
        row = self._writing.execute("SELECT position FROM state").fetchone()
        return row[0] if row else None

    def add(self, documents: Iterable[Document], position: int | None = None) -> None:
        """Raises sqlite3.Error; then nothing of it is in."""
        self._writing.execute("BEGIN IMMEDIATE")
        try:
            # In order: FTS5 writes out what it has gathered whenever a row is below the one before.
            rows = sorted((self._row(each.chat, each.number), spaced(each.body or "")) for each in documents)
            self._writing.execute(_ADD, (json.dumps(rows),))
            if position is not None:
                self._writing.execute("INSERT OR REPLACE INTO state (only, position) VALUES (1, ?)", (position,))
            self._writing.execute("COMMIT")
        except BaseException:
            self._writing.rollback()
            self._ids.clear()
            raise

    def _row(self, chat: ChatKey, number: int) -> int:
        known = self._ids.get(chat)
        if known is None:
            self._writing.execute("INSERT OR IGNORE INTO chats (token, number) VALUES (?, ?)", chat)
            known = self._writing.execute(_CHAT, chat).fetchone()[0]
            if len(self._ids) >= _KNOWN_CHATS:
                self._ids.clear()
            self._ids[chat] = known
        return known << _NUMBER_BITS | number

    def sync(self) -> None:
        """All that is in it by now survives a loss of power as well. (A killed process loses nothing anyhow.)"""
        self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def find(self, chat: ChatKey, expression: str, limit: int) -> list[int]:
        """The newest messages of the chat that an expression in FTS5's language is true of, newest first."""
        connection = self._connect()
        try:
            found = connection.execute(_CHAT, chat).fetchone()
            if found is None:
                return []
            low = found[0] << _NUMBER_BITS
            high = low | ((1 << _NUMBER_BITS) - 1)
            rows = connection.execute(_FIND, (expression, low, high, limit)).fetchall()
        finally:
            connection.close()
        return list(dict.fromkeys(row - low for (row,) in rows))

    def close(self) -> None:
        self._writing.close()

    def remove(self) -> None:
        """Close it and delete its files; who reads it now reads on."""
        self._writing.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


class SqliteIndex:
    """See chat.ports.SearchIndex. In the folder are one or two generations, ``search-N.db``; the highest that has a
    position is asked, and another is what a rebuild fills.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reading = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="search")
        self._current: IndexFile | None = None
        for path in sorted(folder.glob("search-*.db"), key=_generation, reverse=True):
            file = self._opened(path)
            if file is not None:
                self._current = file

    @property
    def current(self) -> IndexFile | None:
        return self._current

    def _opened(self, path: Path) -> IndexFile | None:
        """None, and the file removed, when it was never filled, is damaged, or is older than the one in use."""
        try:
            file = IndexFile(path)
            if self._current is None and file.position is not None:
                return file
            file.remove()
        except sqlite3.Error:
            path.unlink()
        return None

    def start_anew(self) -> IndexFile:
        """A new generation, empty, for a rebuild."""
        number = _generation(self.current.path) + 1 if self.current else 1
        path = self._folder / f"search-{number}.db"
        path.unlink(missing_ok=True)
        return IndexFile(path)

    def adopt(self, file: IndexFile) -> None:
        """From now on this one is asked; the one before is removed."""
        before, self._current = self._current, file
        if before is not None:
            before.remove()

    async def candidates(self, chat: ChatKey, query: Query, *, typos: bool) -> list[int]:
        file = self.current
        if file is None:
            raise Unavailable("The search index is being built. Try again in a while.", retry_after=5)
        expression = " AND ".join(_expression(term, typos=typos) for term in query.terms)
        try:
            limit = TYPO_CANDIDATES if typos else CANDIDATES
            return await asyncio.get_running_loop().run_in_executor(self._reading, file.find, chat, expression, limit)
        except sqlite3.Error as error:
            raise Unavailable(f"The search index can't be read: {error}.", retry_after=5) from error

    def close(self) -> None:
        self._reading.shutdown()
        if self.current is not None:
            self.current.close()


def _generation(path: Path) -> int:
    number = path.stem.removeprefix("search-")
    return int(number) if number.isdigit() else 0


def _expression(term: Term, *, typos: bool) -> str:
    """In FTS5's language. A gram has neither quotes nor anything else that would be syntax between quotes."""
    ways = [term.sure, *(term.typos if typos else ())]
    return "(" + " OR ".join("(" + " AND ".join(f'"{gram}"' for gram in some(way)) + ")" for way in ways if way) + ")"
