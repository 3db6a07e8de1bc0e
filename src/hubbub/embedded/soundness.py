"""Checks that an open database is still usable."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from hubbub.chat.errors import Unavailable

log = logging.getLogger("hubbub.store")

_RETRY_S = 30  # an operator has to act first


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is broken."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Soundness:
    """The state of an open database. ``fault`` says why it takes no more writes: its files were moved, replaced or
    deleted since it was opened, or damage was found. It stays until the service is restarted.
    """

    def __init__(self, database: Path, found: Callable[[str], None] | None = None) -> None:
        """May be called once the database was opened and read, so that its log exists. ``found`` is called with the
        fault when one is found here, and passes it on to the process that commits; without it, this is that process,
        and logs it. So it is logged once, however many processes find it."""
        self._files = [database.with_name(database.name + suffix) for suffix in ("", "-wal")]
        self._opened = self._identities()
        self.fault: str | None = None
        self._tell = found

    def _identities(self) -> list[tuple[int, int]]:
        found = []
        for file in self._files:
            status = file.stat()
            found.append((status.st_dev, status.st_ino))
        return found

    def check(self) -> None:
        """Check that what SQLite has written is in the files that the next start will open. SQLite can't notice that
        itself: a deleted file still accepts writes. Costs two ``stat`` calls, some microseconds.

        Raises:
            Unavailable: the files are missing or were replaced, or there was a fault before.
        """
        if self.fault is None:
            try:
                same = self._identities() == self._opened
            except OSError:
                same = False
            if same:
                return
            self.found(f"The database {self._files[0]} was deleted, moved or replaced while it was being served.")
        raise self.refusal()

    def refusal(self) -> Unavailable:
        return Unavailable(str(self.fault), retry_after=_RETRY_S)

    def met(self, error: sqlite3.Error, what: str) -> Unavailable:
        """The error that a caller gets for an error of SQLite; records a fault if it says that the file is damaged."""
        if is_damage(error):
            self.found(f"The database {self._files[0]} is damaged: {error}.")
        return Unavailable(f"The database can't {what}: {error}.", retry_after=5)

    def found(self, fault: str) -> None:
        """Record the fault, unless there was one before."""
        if self.fault is not None:
            return
        self.fault = fault
        if self._tell is not None:
            self._tell(fault)
            return
        log.critical("%s No more writes are accepted. Stop the service and restore a backup: hubbub restore.", fault)
