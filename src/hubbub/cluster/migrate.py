"""Brings the cluster's database to the schema that this version knows."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from hubbub.schema import behind, config

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Apply what is missing; of several processes that start at once, one does it and the others wait.

    DDL commits by itself in MySQL, so a migration that breaks off halfway must be safe to run again.

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
            if behind(_MIGRATIONS, current, "The database"):
                command.upgrade(config(_MIGRATIONS, connection), "head")
            connection.commit()
        finally:
            connection.scalar(text("SELECT RELEASE_LOCK('hubbub.migrate')"))
