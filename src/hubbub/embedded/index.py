"""The index of the embedded mode: an FTS5 table of trigrams in its own database file.

It keeps no text, no positions and no sizes, only which message has which gram; chat.ranking does the rest. A message's
rowid has its chat's id in the upper half and its number in the lower half. So a chat is one range of rowids, which FTS5
can seek to in the list of any gram.

A table without texts can't delete a row (before SQLite 3.43). So the rows of ``grams`` that an edit or a delete made
outdated are noted in ``gone`` and skipped; the next rebuild removes them. Edited messages are in the table ``edited``,
which keeps texts; each has one row, with its latest text.

It has each chat up to some message, see embedded.index_chats.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.chat.search import CANDIDATES, GRAM, Query, spaced, wanted
from hubbub.embedded.index_chats import FOUND, NUMBER_BITS, SCHEMA, Chats, Part
from hubbub.embedded.index_shares import Change
from hubbub.embedded.readers import Readers
from hubbub.embedded.soundness import is_damage

assert GRAM == 3  # noqa: S101 - FTS5's trigram tokenizer makes no others

log = logging.getLogger("hubbub.search")

_SCHEMA = f"""
    {SCHEMA}
    CREATE TABLE IF NOT EXISTS state (only INTEGER PRIMARY KEY CHECK (only = 1), position INTEGER NOT NULL) STRICT;
    CREATE VIRTUAL TABLE IF NOT EXISTS grams USING fts5(
        text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
    );
    CREATE VIRTUAL TABLE IF NOT EXISTS edited USING fts5(
        text, columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
    );
    CREATE TABLE IF NOT EXISTS gone (row INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE IF NOT EXISTS waiting (
        sender   INTEGER NOT NULL,
        noted_at INTEGER NOT NULL,
        chat_id  INTEGER NOT NULL,
        number   INTEGER NOT NULL,
        size     INTEGER NOT NULL,
        PRIMARY KEY (sender, noted_at, chat_id, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS waiting_longest ON waiting (noted_at);
"""
_ADD = "INSERT INTO {} (rowid, text) VALUES (?, ?)"
_GONE = "INSERT OR IGNORE INTO gone VALUES (?)"
_NOT_EDITED = "DELETE FROM edited WHERE rowid = ?"
_NONE_EDITED = "DELETE FROM edited WHERE rowid BETWEEN ? AND ?"
_WAIT = f"INSERT OR IGNORE INTO waiting VALUES ({', '.join('?' * len(Change._fields))})"
_NOT_WAITING = "DELETE FROM waiting WHERE sender = ? AND noted_at = ? AND chat_id = ? AND number = ?"
_NEWEST = """
    SELECT row FROM (SELECT rowid AS row FROM {0} WHERE {0} MATCH ?1 AND rowid BETWEEN ?2 AND ?3 {1}
                     ORDER BY rowid DESC LIMIT ?4)
"""
_NOT_GONE = "AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.row = grams.rowid)"
# The result is one JSON array: one step of a statement, and one wait for the GIL, instead of one for each message.
_FIND = f"""
    SELECT json_group_array(row) FROM (
        SELECT DISTINCT row FROM ({_NEWEST.format("grams", _NOT_GONE)} UNION ALL {_NEWEST.format("edited", "")})
        ORDER BY row DESC LIMIT ?4)
"""
_MERGED_AT_ONCE = 8  # parts of the index; with FTS5's 4 each is written more often, and searches are no faster
_USERS_AT_ONCE = 20  # of the users with waiting changes
_CHANGES_AT_ONCE = 4000  # of these users
# SQLite and FTS5 report these as errors of the statement; with our statements they mean damage.
_DAMAGES = ("no such table", "no such column", "vtable constructor failed", "invalid fts5 file format")


class Progress(NamedTuple):
    """How far the index has come: it has the store's changes up to ``position``, except the waiting ones. The changes
    in ``taken`` no longer wait; those in ``later`` wait from now on.
    """

    position: int
    taken: Sequence[Change] = ()
    later: Sequence[Change] = ()


class Indexed(NamedTuple):
    """The numbers of the candidates that the index has, newest first. It has the chat up to the number ``reached``."""

    numbers: list[int]
    reached: int


class Damaged(sqlite3.DatabaseError):
    """The index is damaged or not of this store; the text says why."""


class IndexFile:
    """One generation of the index. ``add`` and ``check`` belong to one thread; ``find`` may be called on any.

    Invariant: if it has a ``position``, all changes of the store up to it are in the file, or in its table ``waiting``;
    position and changes are written in one transaction. Without a position the file is still being filled, and is not
    complete. The positions are those of the store of ``data_set``, see embedded.data_set.
    """

    def __init__(self, path: Path, data_set: int) -> None:
        """Open or create the file. Raises sqlite3.Error when it is no index, or the index of another store."""
        self.path = path
        path.touch(mode=0o600)
        self._inode = path.stat().st_ino
        self._writing = self._connect()
        self._readers = Readers(self._connect)
        try:
            self._writing.executescript(_SCHEMA)
            self._must_be_of(data_set)
            row = self._writing.execute("SELECT position FROM state").fetchone()
        except BaseException:
            self._writing.close()
            raise
        self.position: int | None = row[0] if row else None
        self._chats = Chats(self._writing)
        self.reached = self._chats.reached
        self.due = self._chats.due
        self._latest = 0  # user of those who wait

    def _must_be_of(self, data_set: int) -> None:
        """Check that the index belongs to the data set. An index of a version without such numbers is accepted."""
        (found,) = self._writing.execute("PRAGMA user_version").fetchone()
        if found == 0:
            self._writing.execute(f"INSERT INTO grams (grams, rank) VALUES ('automerge', {_MERGED_AT_ONCE})")
            self._writing.execute(f"PRAGMA user_version = {data_set}")
        elif found != data_set:
            raise Damaged(f"it belongs to the data set {found:08x}")
        elif self._writing.execute("SELECT 1 FROM sqlite_master WHERE name = 'joining'").fetchone():
            raise Damaged("a version that was never released wrote it")

    def check(self) -> None:
        """Read all of it; some 10 MB take 10 ms. Raises sqlite3.Error when it is damaged."""
        (verdict,) = self._writing.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Damaged(verdict)

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: if the file is missing, that is an error; no new file is created.
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16000")
        return connection

    def is_there(self) -> bool:
        """Whether the file at its path is still this one."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def waiting(self) -> list[Change]:
        """Some of the waiting changes: for each of the next users, those that have waited longest."""
        users: list[int] = []
        while len(users) < _USERS_AT_ONCE:
            next_user = "SELECT sender FROM waiting WHERE sender > ? LIMIT 1"
            row = self._writing.execute(next_user, (self._latest,)).fetchone()
            row = row or self._writing.execute(next_user, (-1,)).fetchone()
            if row is None or row[0] in users:
                break
            self._latest = row[0]
            users.append(row[0])
        found: list[Change] = []
        of_user = "SELECT * FROM waiting WHERE sender = ? ORDER BY noted_at, chat_id, number LIMIT ?"
        for user in users:
            found += map(Change._make, self._writing.execute(of_user, (user, _CHANGES_AT_ONCE // len(users))))
        return found

    def waiting_since(self) -> int | None:
        """The time (ms) at which the oldest waiting change was noted; None when nothing waits. May be called on any
        thread."""
        with self._readers.one() as connection:
            since: int | None = connection.execute("SELECT min(noted_at) FROM waiting").fetchone()[0]
            return since

    def add(
        self,
        documents: Iterable[Document],
        progress: Progress | None = None,
        *,
        due: Iterable[Part] = (),
        parts: Iterable[Part] = (),
        gone: Iterable[ChatKey] = (),
    ) -> None:
        """Add the documents, except those above what the index has of a chat, see embedded.index_chats. ``due``: chats
        to take in from now on; ``parts``: what it has of those that were due, with these documents; ``gone``: erased
        chats, of which it keeps no texts. Raises sqlite3.Error; then nothing was added.
        """
        if not self.is_there():
            raise Damaged("it was deleted or replaced")
        # FTS5 writes its lists anew again and again. Debian's SQLite would overwrite each old one with zeros.
        self._writing.execute("PRAGMA secure_delete = FAST")
        self._writing.execute("BEGIN IMMEDIATE")
        try:
            new: dict[int, str] = {}
            edited: dict[int, str] = {}
            changed: list[tuple[int]] = []
            self._chats.want(due)
            self._chats.reach(parts)
            for chat, number, body, _, was_edited in documents:
                first, last = self._chats.rows(chat)
                row = first + number
                if row > last:
                    continue
                if was_edited or body is None:
                    changed.append((row,))
                if body is not None:
                    (edited if was_edited else new)[row] = spaced(body)
            self._insert("grams", new)
            if changed:
                self._writing.execute("PRAGMA secure_delete = ON")  # ``edited`` has texts
                self._writing.executemany(_GONE, changed)
                self._writing.executemany(_NOT_EDITED, changed)
                self._insert("edited", edited)
            for chat in gone:
                self._writing.execute("PRAGMA secure_delete = ON")
                self._writing.execute(_NONE_EDITED, self._chats.rows(chat))
            if progress is not None:
                self._note(progress)
            self._writing.execute("COMMIT")
        except BaseException:
            self._chats.forget()
            self._writing.rollback()
            raise
        if progress is not None:
            self.position = progress.position

    def _note(self, progress: Progress) -> None:
        self._writing.executemany(_NOT_WAITING, (each[:4] for each in progress.taken))
        self._writing.executemany(_WAIT, progress.later)
        self._writing.execute("INSERT OR REPLACE INTO state (only, position) VALUES (1, ?)", (progress.position,))

    def _insert(self, table: str, rows: dict[int, str]) -> None:
        """Insert rows in order: FTS5 flushes its buffer whenever a rowid is below the one before."""
        self._writing.executemany(_ADD.format(table), sorted(rows.items()))

    def sync(self) -> None:
        """Make everything written so far survive a loss of power. (A killed process loses nothing in any case.)"""
        self._writing.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def find(self, chat: ChatKey, expression: str, limit: int, below: int | None = None) -> Indexed:
        """What it has of the chat's newest messages that match an FTS5 expression."""
        with self._readers.one() as connection:
            # ``reached`` is read first: whatever is above it, is for a scan.
            id, reached = connection.execute(FOUND, chat).fetchone() or (0, 0)
            low = id << NUMBER_BITS
            high = low | (reached if below is None else min(reached, below - 1))
            rows = connection.execute(_FIND, (expression, low, high, limit)).fetchone()[0] if id else "[]"
        return Indexed(sorted((row - low for row in json.loads(rows)), reverse=True), reached)

    def close(self) -> None:
        self._readers.close()
        self._writing.close()

    def remove(self) -> None:
        """Close it and delete its files; reads in progress can finish."""
        self.close()
        _delete(self.path)


class SqliteIndex:
    """The files of the index. The folder has one or two generations, ``search-N.db``. Searches use the highest one that
    has a position; a rebuild fills the other.

    A damaged generation is no longer used, but stays until the next one is adopted; until then ``current`` is None.
    """

    def __init__(self, folder: Path, data_set: int) -> None:
        self._folder = folder
        self._data_set = data_set
        self._generation: IndexFile | None = None
        self._unusable = False
        for path in sorted(folder.glob("search-*.db"), key=_generation, reverse=True):
            file = self._opened(path)
            if file is not None:
                self._generation = file

    @property
    def current(self) -> IndexFile | None:
        return None if self._unusable else self._generation

    @property
    def fault(self) -> str | None:
        """Why searching is impossible now, or None."""
        if self._unusable:
            return "The search index was damaged and is being rebuilt."
        return None if self._generation is not None else "The search index is being built."

    def _opened(self, path: Path) -> IndexFile | None:
        """Open a file. If it was never filled, is damaged, or is older than the one in use, remove it and return
        None."""
        try:
            file = IndexFile(path, self._data_set)
            if self._generation is None and file.position is not None:
                return file
            file.remove()
        except sqlite3.Error as error:
            log.error("The search index %s can't be used and is rebuilt: %s", path, error)
            _delete(path)
        return None

    def noticed(self, file: IndexFile, error: sqlite3.Error) -> bool:
        """Whether an error in using ``file`` means that it is damaged. If so, it is no longer used."""
        said = str(error)
        damaged = isinstance(error, Damaged) or is_damage(error) or said.startswith(_DAMAGES) or not file.is_there()
        if damaged:
            self.mark_unusable(file, said)
        return damaged

    def mark_unusable(self, file: IndexFile, why: str) -> None:
        if file is self._generation and not self._unusable:
            self._unusable = True
            log.error("The search index %s can't be used and is rebuilt: %s", file.path, why)

    def start_anew(self) -> IndexFile:
        """Create a new, empty generation for a rebuild."""
        number = _generation(self._generation.path) + 1 if self._generation else 1
        path = self._folder / f"search-{number}.db"
        _delete(path)
        return IndexFile(path, self._data_set)

    def adopt(self, file: IndexFile) -> None:
        """Use this generation from now on, and remove the one before."""
        before, self._generation, self._unusable = self._generation, file, False
        if before is not None:
            before.remove()

    def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Indexed:
        """As chat.ports.SearchIndex has it, but it blocks, and knows only what it has of the chat. May be called on any
        thread. Raises Unavailable."""
        file = self.current
        if file is None:
            raise _being_made()
        expression = " AND ".join(map(_expression, wanted(query, typos=typos)))
        try:
            return file.find(chat, expression, limit, below)
        except sqlite3.Error as error:
            if self.noticed(file, error):
                raise _being_made() from error
            raise Unavailable(f"The search index can't be read: {error}.", retry_after=5) from error

    def close(self) -> None:
        if self._generation is not None:
            self._generation.close()


def _being_made() -> Unavailable:
    return Unavailable("The search index is being built. Try again in a while.", retry_after=5)


def _delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _generation(path: Path) -> int:
    number = path.stem.removeprefix("search-")
    return int(number) if number.isdigit() else 0


def _expression(ways: Iterable[Iterable[str]]) -> str:
    """The ways to find a term as an FTS5 expression. A gram has neither quotes nor anything else that is syntax between
    quotes."""
    return "(" + " OR ".join("(" + " AND ".join(f'"{gram}"' for gram in way) + ")" for way in ways) + ")"
