"""Identifies the data set of a folder by a number in the database's header and in a marker file beside the database. So
a missing or replaced database can be distinguished from a new folder.

The header is read as bytes: SQLite would create a missing database, and apply a left-over log to it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path

MARKER = "data-set"
_MAGIC = b"SQLite format 3\0"
_RESTORE = "restore a backup into a new folder (hubbub restore FILE --data NEW)"
_NUMBER_AT = 60  # of PRAGMA user_version, four bytes


class DataSetWrong(Exception):
    """The database is not the one that belongs to the folder; the text says what to do."""


def settled(database: Path) -> int:
    """The number of the data set in the folder of ``database``. A new folder gets a database with nothing but its
    number; a database of a version without numbers gets one. Both are on disk before the marker is.

    Raises:
        DataSetWrong
        OSError, sqlite3.Error: the database or the marker can't be read or written.
    """
    found, marked = checked(database)
    if marked is None:
        found = found or _give_number(database)
        write_durably(database.with_name(MARKER), f"{found:08x}\n")
    return found


def checked(database: Path) -> tuple[int, int | None]:
    """The number in the database (0 when it has none or there is no database), and the number in the marker (None when
    there is no marker). Changes nothing.

    Raises:
        DataSetWrong
        OSError
    """
    marker = database.with_name(MARKER)
    marked = _marked(marker)
    if not database.exists() or database.stat().st_size == 0:
        if marked is not None:
            raise DataSetWrong(
                f"The database {database} is missing or empty, and the folder held data before. Put it back, or "
                f"{_RESTORE}. To start without the data, remove {marker}."
            )
        return 0, None
    found = _number_of(database)
    if marked not in (None, found):
        raise DataSetWrong(
            f"The database {database} is not the one of this folder (its data set is {found:08x}, the folder's is "
            f"{marked:08x}). Put the right one back, or {_RESTORE}. To use the one that is there, remove "
            f"{marker}."
        )
    return found, marked


def _number_of(database: Path) -> int:
    """0 when it has none."""
    with database.open("rb") as file:
        header = file.read(100)
    if not header.startswith(_MAGIC):
        raise DataSetWrong(f"{database} is no database, or it is damaged. Put the right one back, or {_RESTORE}.")
    return int.from_bytes(header[_NUMBER_AT : _NUMBER_AT + 4], "big")


def _give_number(database: Path) -> int:
    number = secrets.randbelow(2**31 - 1) + 1
    database.touch(mode=0o600)
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # into the file itself, where an older version left a log
    finally:
        connection.close()
    return number


def _marked(marker: Path) -> int | None:
    try:
        return int(marker.read_bytes(), 16)
    except FileNotFoundError:
        return None
    except ValueError:
        raise DataSetWrong(
            f"{marker} is damaged: it must hold the data set's number. Remove it to use the database that is there."
        ) from None


def write_durably(path: Path, text: str) -> None:
    """Write a file durably, whole or not at all, readable by its owner only."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
