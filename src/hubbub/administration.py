"""Opens a store for the commands that manage accounts, while a service may be running on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from hubbub.chat.errors import Unavailable
from hubbub.chat.ports import Store
from hubbub.schema import SchemaTooNew
from hubbub.settings import Settings


class CantOpen(Exception):
    """The store can't be opened; the text says why and what to do."""


@contextmanager
def opened(settings: Settings, data: str | None) -> Iterator[Store]:
    """The data folder's store, or a cluster's if the settings name its database and no folder is named. A change takes
    effect at once in the service that runs on it.

    Raises:
        CantOpen
    """
    if settings.mysql_url and data is None:
        from hubbub.cluster.service import database_of
        from hubbub.cluster.store import MySqlStore

        try:
            database = database_of(settings, pool_size=1)
        except (SchemaTooNew, Unavailable) as error:
            raise CantOpen(str(error)) from error
        try:
            yield MySqlStore(database)
        except Unavailable as error:
            raise CantOpen(error.sentence) from error
        finally:
            database.close()
        return
    from hubbub.embedded.data_folder import DataFolder, FolderUnusable
    from hubbub.embedded.migrate import is_current
    from hubbub.embedded.store import SqliteStore

    path = settings.data / "hubbub.db"
    if not path.exists():
        raise CantOpen(f"{settings.data} is no data folder of Hubbub. Name the right one with --data.")
    try:
        DataFolder.must_be_here(settings.data)
        if not is_current(path):  # a service of that version may be running on it
            raise CantOpen(f"{settings.data} is of an earlier version. Start `hubbub serve` of this one on it first.")
        store = SqliteStore(path)
    except FolderUnusable as error:
        raise CantOpen(str(error)) from error
    except (SchemaTooNew, sqlite3.Error) as error:
        raise CantOpen(f"the database in {settings.data} can't be opened: {error}") from error
    try:
        yield store
    except Unavailable as error:
        raise CantOpen(error.sentence) from error
    finally:
        store.close()
