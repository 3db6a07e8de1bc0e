"""Keeps SQLite's write-ahead log short while long reads follow one another.

SQLite begins the log anew only when all of it is in the database and nobody reads from it. Its own checkpoint, in a
commit, stops at the end of what the oldest read sees, so while there is always some long read the log grows for ever.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

MOST_BYTES = 32 * 1024 * 1024
_COMMITS_WAIT_MS = 20  # for as long as others read: a commit waits meanwhile
_AGAIN_S = 1.0  # at the earliest, when it could not be done


class Wal:
    """The log of an open database. Whoever makes long reads, one after another, calls ``shorten`` between them."""

    def __init__(self, database: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._file = database.with_name(database.name + "-wal")
        self._connect = connect
        self._not_before = 0.0

    def shorten(self) -> None:
        """Empty the log if it has become larger than MOST_BYTES, unless others read or write all the time: then it is
        tried again by a later call. Blocks. Raises sqlite3.Error.
        """
        if time.monotonic() < self._not_before or os.stat(self._file).st_size <= MOST_BYTES:
            return
        with closing(self._connect()) as connection:
            connection.execute(f"PRAGMA busy_timeout = {_COMMITS_WAIT_MS}")
            # This is most of the work, and lets commits go on. Little is left for what follows, which doesn't.
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._not_before = time.monotonic() + _AGAIN_S
