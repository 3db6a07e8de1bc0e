"""The folder of the embedded mode: its lock, its secret, its database."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

REBUILD = "rebuild-search"
_LOOK_S = 0.5


class FolderUnusable(Exception):
    """The folder can't be used; the text says why and what to do."""


class DataFolder:
    """Held by one process at a time, from ``open`` to ``close``. The lock dies with the process, however it dies."""

    def __init__(self, path: Path, lock: IO[str], secret: bytes) -> None:
        self.path = path
        self.database = path / "hubbub.db"
        self.secret = secret
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> DataFolder:
        """Make the folder where needed, and take it.

        Raises:
            FolderUnusable: another process has it, or it can't be written.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (path / "lock").open("a+")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                lock.close()
                raise FolderUnusable(
                    f"The data folder {path} is in use by another Hubbub (process {holder}). "
                    "Stop that one, or choose another folder with --data."
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            return cls(path, lock, _secret(path / "secret"))
        except OSError as error:
            raise FolderUnusable(
                f"The data folder {path} can't be used: {error.strerror}. "
                "Choose one that can be written with --data, or mend its permissions."
            ) from error

    async def when_asked(self, what: str, act: Callable[[], None]) -> None:
        """Look again and again for a request that another process has left with ``ask``; runs until cancelled."""
        file = self.path / what
        while True:
            if file.exists():
                file.unlink()
                act()
            await asyncio.sleep(_LOOK_S)

    @staticmethod
    def ask(path: Path, what: str) -> None:
        """Leave a request for the process that has the folder, or the next that takes it. Raises FolderUnusable."""
        if not (path / "hubbub.db").exists():
            raise FolderUnusable(f"{path} is no data folder of Hubbub. Name the right one with --data.")
        (path / what).touch()

    def close(self) -> None:
        self._lock.close()


def _secret(path: Path) -> bytes:
    """The key that signs sessions: made once, readable by its owner only."""
    if not path.exists():
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    content = path.read_text().strip()
    if len(content) < 64:
        raise FolderUnusable(f"{path} is damaged: it must hold 64 hexadecimal digits. Delete it to end all sessions.")
    return content.encode()
