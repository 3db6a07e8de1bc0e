"""Brings a database to the schema this version knows, or refuses one that a newer version wrote."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

_MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """The database was written by a newer version of Hubbub."""


def migrate_sqlite(path: Path) -> None:
    """Apply what is missing, each migration whole or not at all.

    Raises:
        SchemaTooNew: the database has a migration that this version does not know.
    """
    known = sorted(file.stem.split("_")[0] for file in (_MIGRATIONS / "sqlite").glob("[0-9]*.py"))
    current = _current(path)
    if current is not None and current not in known:
        raise SchemaTooNew(
            f"{path} was written by a newer Hubbub (schema {current}; this one knows up to {known[-1]}). "
            "Start the newer version, or restore a backup made with this one."
        )
    if current != known[-1]:
        _upgrade(path)


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
    from alembic.config import Config
    from sqlalchemy import URL, create_engine, event

    engine = create_engine(URL.create("sqlite", database=str(path)))

    # The sqlite3 module commits before DDL of its own accord; with its transactions off, BEGIN covers the DDL too.
    @event.listens_for(engine, "connect")
    def _explicit_transactions(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("version_locations", str(_MIGRATIONS / "sqlite").replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
