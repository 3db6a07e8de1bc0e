"""Brings a database to the schema this version knows, or refuses one that a newer version wrote."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

_MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """The database was written by a newer version of Hubbub."""


def migrate_sqlite(path: Path) -> None:
    """Apply what is missing, each migration whole or not at all.

    Raises:
        SchemaTooNew: the database has a migration that this version does not know.
    """
    if _behind("sqlite", _current(path), str(path)):
        _upgrade(path)


def _behind(dialect: str, current: str | None, where: str) -> bool:
    known = sorted(file.stem.split("_")[0] for file in (_MIGRATIONS / dialect).glob("[0-9]*.py"))
    if current is not None and current not in known:
        raise SchemaTooNew(
            f"{where} was written by a newer Hubbub (schema {current}; this one knows up to {known[-1]}). "
            "Start the newer version, or restore a backup made with this one."
        )
    return current != known[-1]


def migrate_mysql(engine: Engine) -> None:
    """Apply what is missing; of several processes that start at once, one does it and the others wait.

    DDL commits by itself in MySQL, so a migration that breaks off halfway must be safe to run again or be mended.

    Raises:
        SchemaTooNew: the database has a migration that this version does not know.
        sqlalchemy.exc.DBAPIError: the database can't be reached or changed.
    """
    from alembic import command
    from sqlalchemy import inspect, text

    with engine.connect() as connection:
        if not connection.scalar(text("SELECT GET_LOCK('hubbub.migrate', 60)")):
            raise RuntimeError("Another process has been migrating the database for a minute.")
        try:
            current = None
            if inspect(connection).has_table("alembic_version"):
                current = connection.scalar(text("SELECT version_num FROM alembic_version"))
            if _behind("mysql", current, "The database"):
                command.upgrade(_config("mysql", connection), "head")
            connection.commit()
        finally:
            connection.scalar(text("SELECT RELEASE_LOCK('hubbub.migrate')"))


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

    engine = create_engine(URL.create("sqlite", database=str(path)))

    # The sqlite3 module commits before DDL of its own accord; with its transactions off, BEGIN covers the DDL too.
    @event.listens_for(engine, "connect")
    def _explicit_transactions(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        command.upgrade(_config("sqlite", connection), "head")
    engine.dispose()


def _config(dialect: str, connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("version_locations", str(_MIGRATIONS / dialect).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
