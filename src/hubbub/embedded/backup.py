"""Backs up the embedded mode's data to one file, while the service runs, and restores a data folder from it.

A backup has no search index: a service that starts without one builds it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_DATABASE, _SECRET = "hubbub.db", "secret"
_SCRATCH = ".hubbub-unfinished-"


class BackupFailed(Exception):
    """The text says why, and what to do."""


def back_up(folder: Path, file: Path) -> int:
    """Write the backup ``file``, whole or not at all. Returns its size in bytes.

    SQLite copies what was committed when it began; the service can go on writing.

    Raises:
        BackupFailed
    """
    if not (folder / _DATABASE).exists():
        raise BackupFailed(f"{folder} is no data folder of Hubbub. Name the right one with --data.")
    if file.exists():
        raise BackupFailed(f"{file} is there already. Choose another name, or remove it first.")
    try:
        with _scratch(file.parent) as scratch:
            copy = Path(scratch) / _DATABASE
            _copy(folder / _DATABASE, copy)
            unfinished = Path(scratch) / "backup.tar"
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
                with tarfile.open(fileobj=output, mode="w") as archive:
                    archive.add(copy, _DATABASE)
                    archive.add(folder / _SECRET, _SECRET)
                output.flush()
                os.fsync(output.fileno())
            unfinished.rename(file)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"The backup could not be written: {error}. Nothing was changed.") from error
    return file.stat().st_size


@contextmanager
def _scratch(parent: Path) -> Iterator[str]:
    """A temporary folder in ``parent`` for unfinished files. Folders left there by killed backups and restores are
    removed.

    Each backup or restore holds a shared lock on ``parent`` while it works. A process that gets the exclusive lock
    knows that no other one works there.
    """
    lock = os.open(parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems have no locks: then old folders stay
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in parent.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent) as scratch:
            yield scratch
    finally:
        os.close(lock)


def _copy(database: Path, copy: Path) -> None:
    copy.touch(mode=0o600)
    source = sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)
    target = sqlite3.connect(copy)
    try:
        source.execute("PRAGMA query_only = ON")
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    finally:
        target.close()
        source.close()


def restore(file: Path, folder: Path) -> int:
    """Create ``folder`` from a backup, whole or not at all. Returns the number of messages in it.

    Raises:
        BackupFailed
    """
    if folder.exists() and any(folder.iterdir()):
        raise BackupFailed(f"{folder} is not empty. Restore into a new folder with --data, then serve that one.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(folder.parent) as scratch:
            made = Path(scratch) / "data"
            made.mkdir(mode=0o700)
            with tarfile.open(file) as archive:
                for name in (_DATABASE, _SECRET):
                    content = archive.extractfile(name)
                    if content is None:
                        raise BackupFailed(f"{file} is no backup of Hubbub.")
                    _write(made / name, content)
            count = _checked(made / _DATABASE)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    except (KeyError, tarfile.TarError) as error:
        why = str(error).splitlines()[0].rstrip(":")  # tarfile adds a line for each kind of compression
        raise BackupFailed(f"{file} is no backup of Hubbub, or it is damaged: {why}.") from error
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"The backup could not be restored: {error}. Nothing was changed.") from error
    return count


def _write(path: Path, content: IO[bytes]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        while piece := content.read(1024 * 1024):
            output.write(piece)
        output.flush()
        os.fsync(output.fileno())


def _checked(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise BackupFailed(f"The backup is damaged: {verdict}.")
        return int(connection.execute("SELECT COUNT(*) FROM messages").fetchone()[0])
    finally:
        connection.close()
