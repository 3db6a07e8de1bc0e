"""Changes an account from outside the service, which may be running."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from hubbub.chat.accounts import existing
from hubbub.chat.commands import Command
from hubbub.chat.errors import ChatError
from hubbub.embedded.data_folder import ACCOUNTS, DataFolder, FolderInUse, FolderUnusable
from hubbub.embedded.migrate import is_current
from hubbub.embedded.store import SqliteStore

_HEARD_WITHIN_S = 10.0


def change_account(path: Path, email: str, command: Callable[[int], Command]) -> None:
    """Apply the command that ``command`` makes for the id of the account with this email. It is in effect in a running
    service when this returns.

    Raises:
        FolderUnusable: the folder, or its service, can't be used.
        ChatError: there is no such account, or the command is refused.
        SchemaTooNew: a newer version wrote the database.
    """
    database = path / "hubbub.db"
    if not database.exists():
        raise FolderUnusable(f"{path} is no data folder of Hubbub. Name the right one with --data.")
    try:
        try:
            folder = DataFolder.open(path)
        except FolderInUse:
            if not is_current(database):
                raise FolderUnusable(
                    f"The service that has {path} is of an earlier version. Stop it, or use its own `hubbub users`."
                ) from None
            _apply(database, email, command)
            _tell(path)
            return
        _apply(database, email, command)
        folder.close()
    except sqlite3.Error as error:
        raise FolderUnusable(f"The database in {path} can't be used: {error}.") from error


def _apply(database: Path, email: str, command: Callable[[int], Command]) -> None:
    store = SqliteStore(database)
    try:
        user = asyncio.run(existing(store, email))
        (outcome,) = store.apply([command(user.id)])
    finally:
        store.close()
    if isinstance(outcome, ChatError):
        raise outcome


def _tell(path: Path) -> None:
    """Make the service drop what it has cached of accounts, and wait until it has done so."""
    DataFolder.ask(path, ACCOUNTS)
    until = time.monotonic() + _HEARD_WITHIN_S
    while DataFolder.is_asked(path, ACCOUNTS):
        if time.monotonic() > until:
            raise FolderUnusable(
                f"The account was changed, but the service that has {path} can't be informed: sessions of the account"
                " may go on until you restart it."
            )
        time.sleep(0.05)
