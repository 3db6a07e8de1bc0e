"""The folder of the embedded mode: its lock, its secret, its database, and their permissions."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

from hubbub.chat.errors import Unavailable
from hubbub.embedded.data_set import MARKER, DataSetWrong, settled, write_durably

log = logging.getLogger("hubbub")

REBUILD = "rebuild-search"
ACCOUNTS = "accounts-changed"
_MOVED = "moved"  # has the address of the cluster that the data was moved to
_TAKEN = ".taken"  # added to the name of a request while it is carried out
_LOOK_S = 0.5
_ENDING_S = 5.0  # for the processes of a killed service to end
_OURS = ("hubbub.db*", "search-*.db*", "secret*", f"{MARKER}*", "lock", f"{REBUILD}*", f"{ACCOUNTS}*", _MOVED)


class FolderUnusable(Exception):
    """The folder can't be used; the text says why and what to do."""


class FolderInUse(FolderUnusable):
    """Another process uses the folder."""


class DataFolder:
    """A data folder, which one service at a time holds, from ``open`` to ``close``. When all its processes have died,
    the system releases the lock."""

    def __init__(self, path: Path, lock: IO[str], data_set: int, secret: bytes) -> None:
        """``data_set``: see embedded.data_set."""
        self.path = path
        self.database = path / "hubbub.db"
        self.data_set = data_set
        self.secret = secret
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> DataFolder:
        """Create the folder if needed, and lock it to serve it.

        Raises:
            FolderUnusable: another process has it, it can't be written, its database is not the one that belongs to it,
                or its data was moved to a cluster.
        """
        folder = cls._take(path)
        try:
            cls.must_be_here(path)
        except FolderUnusable:
            folder.close()
            raise
        return folder

    @staticmethod
    def must_be_here(path: Path) -> None:
        """Raises FolderUnusable when the folder's data was moved to a cluster."""
        moved = path / _MOVED
        if moved.exists():
            raise FolderUnusable(
                f"The data in {path} was moved to the cluster at {moved.read_text().strip()}: serve it there. To serve "
                f"this copy instead, without what the cluster has taken since, remove {moved}."
            )

    @classmethod
    def open_existing(cls, path: Path) -> DataFolder:
        """Open an existing folder, to move its data. Raises FolderUnusable."""
        cls._check_there(path)
        return cls._take(path)

    def mark_moved(self, where: str) -> None:
        """Mark the folder as moved, durably: it can't be served any more. Raises FolderUnusable."""
        try:
            write_durably(self.path / _MOVED, f"{where}\n")
        except OSError as error:
            raise FolderUnusable(f"{self.path / _MOVED} can't be written: {error.strerror}.") from error

    @classmethod
    def _take(cls, path: Path) -> DataFolder:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _locked(path)
            _close_to_others(path)
            return cls(path, lock, settled(path / "hubbub.db"), _secret(path / "secret"))
        except DataSetWrong as error:
            raise FolderUnusable(str(error)) from error
        except sqlite3.Error as error:
            raise FolderUnusable(
                f"The database in {path} can't be opened: {error}. Restore a backup into a new folder: hubbub restore."
            ) from error
        except OSError as error:
            raise FolderUnusable(
                f"The data folder {path} can't be used: {error.strerror}. "
                "Choose one that can be written with --data, or fix its permissions."
            ) from error

    async def when_asked(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Poll for requests that other processes leave with ``ask``, and call ``act``, again later if that raises
        Unavailable; runs until cancelled. Each reason for that is logged once for a request."""
        asked, taken = self.path / what, self.path / f"{what}{_TAKEN}"
        logged = ""
        while True:
            if asked.exists():
                asked.rename(taken)  # one that is left from now on is another request
            if taken.exists():
                try:
                    await act()
                    taken.unlink()
                    logged = ""
                except Unavailable as error:
                    if str(error) != logged:
                        logged = str(error)
                        log.warning("%s is asked for, and tried until it can be done: %s", what, error)
            await asyncio.sleep(_LOOK_S)

    @staticmethod
    def ask(path: Path, what: str) -> None:
        """Leave a request for the process that has the folder, or for the next one. Raises FolderUnusable."""
        DataFolder._check_there(path)
        (path / what).touch(mode=0o600)

    @staticmethod
    def is_asked(path: Path, what: str) -> bool:
        """Whether a request that was left there is not carried out yet."""
        return (path / what).exists() or (path / f"{what}{_TAKEN}").exists()

    @staticmethod
    def _check_there(path: Path) -> None:
        if not (path / "hubbub.db").exists():
            raise FolderUnusable(f"{path} is no data folder of Hubbub. Name the right one with --data.")

    def close(self) -> None:
        self._lock.close()


def _locked(folder: Path) -> IO[str]:
    """The file of the folder's lock, locked, with the id of this process in it. Raises FolderInUse, OSError."""
    lock = os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+")
    until = time.monotonic() + _ENDING_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            if not _is_dead(holder) or time.monotonic() > until:
                lock.close()
                raise FolderInUse(
                    f"The data folder {folder} is in use by another Hubbub (process {holder}). "
                    "Stop that one, or choose another folder with --data."
                ) from None
        time.sleep(0.01)  # it was killed, and its other processes (embedded.child) are ending
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _is_dead(process: str) -> bool:
    """Whether the process has ended, also if its parent has not waited for it yet."""
    try:
        os.kill(int(process), 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (ValueError, PermissionError):
        return False


def _secret(path: Path) -> bytes:
    """The key that signs sessions: created once, readable by its owner only."""
    if not path.exists():
        write_durably(path, secrets.token_hex(32))
    content = path.read_bytes().strip()
    if not re.fullmatch(rb"[!-~]{64,}", content):
        raise FolderUnusable(f"{path} is damaged: it must hold 64 hexadecimal digits. Delete it to end all sessions.")
    return content


def _close_to_others(folder: Path) -> None:
    """Remove other users' permissions on the folder's files, whichever program created them. Raises OSError."""
    for pattern in _OURS:
        for file in folder.glob(pattern):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
    if folder.stat().st_mode & 0o022:
        log.warning("Others can write to the data folder %s: chmod go-w %s", folder, folder)
