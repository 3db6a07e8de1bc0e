"""Brings the SQLite file to the schema that this version knows."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from hubbub.schema import behind, config

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(path: Path) -> None:
    """Apply what is missing, each migration whole or not at all.

    Raises:
        SchemaTooNew: the database has a migration that this version does not know.
        sqlite3.Error
    """
    if not is_current(path):
        _upgrade(path)


def is_current(path: Path) -> bool:
    """Whether nothing is missing. Raises SchemaTooNew."""
    return not behind(_MIGRATIONS, _current(path), str(path))


def _current(path: Path) -> str | None:
    with sqlite3.connect(path) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            row = None
    connection.close()
    return None if row is None else str(row[0])


def _upgrade(path: Path) -> None:
    # Imported here alone: they cost 25 MB and a third of a second, and most starts have nothing to migrate.
    from alembic import command
    from sqlalchemy import URL, create_engine, event
    from sqlalchemy.exc import DBAPIError

    engine = create_engine(URL.create("sqlite", database=str(path)))

    # The sqlite3 module commits before DDL of its own accord; with its transactions off, BEGIN covers the DDL too.
    @event.listens_for(engine, "connect")
    def _explicit_transactions(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        with engine.begin() as connection:
            command.upgrade(config(_MIGRATIONS, connection), "head")
    except DBAPIError as error:  # a full disk, say
        raise error.orig or error from None
    finally:
        engine.dispose()
