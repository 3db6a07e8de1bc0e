"""Keeps SQLite's write-ahead log short while long reads follow one another.

SQLite restarts the log only when all of it is in the database and no connection reads from it. The automatic checkpoint
in a commit stops at the end of what the oldest read sees. So the log grows for ever while there is always a long read.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

MOST_BYTES = 32 * 1024 * 1024
_COMMITS_WAIT_MS = 20  # how long it waits for reads to end; commits wait during that time
_AGAIN_S = 1.0  # the shortest time between two tries
TURN_S = 5.0  # how long a process waits for the long reads of others
_LOOK_S = 0.005


class Wal:
    """The log of an open database. Code that makes long reads, one after another, calls ``shorten`` between them."""

    def __init__(self, database: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._file = database.with_name(database.name + "-wal")
        self._connect = connect
        self._not_before = 0.0

    def shorten(self) -> None:
        """Empty the log if it is larger than MOST_BYTES. If other connections read or write all the time, a later call
        tries again. Blocks. Raises sqlite3.Error.
        """
        if time.monotonic() < self._not_before or os.stat(self._file).st_size <= MOST_BYTES:
            return
        with closing(self._connect()) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_COMMITS_WAIT_MS}")
            # This is most of the work, and does not block commits. The next step, which does, has little left to do.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._not_before = time.monotonic() + _AGAIN_S


class LongReads:
    """Lets all processes that have the database make their long reads one after another: if they overlapped, the log
    could never be emptied. One thread of a process uses it."""

    def __init__(self, database: Path) -> None:
        # A lock of the folder: SQLite loses its own locks when a file of the database is closed.
        self._folder = os.open(database.parent, os.O_RDONLY | os.O_DIRECTORY)

    @contextmanager
    def turn(self, within_s: float = TURN_S) -> Iterator[None]:
        """Wait until no other process is in this block, at most so long: one that stands still must not stop the
        others. Blocks."""
        until = time.monotonic() + within_s
        while not self._taken() and time.monotonic() < until:
            time.sleep(_LOOK_S)
        try:
            yield
        finally:
            fcntl.flock(self._folder, fcntl.LOCK_UN)

    def _taken(self) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def close(self) -> None:
        os.close(self._folder)
