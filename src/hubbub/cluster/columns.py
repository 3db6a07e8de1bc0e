"""Adds columns in migrations. DDL commits by itself in MySQL, so a migration that failed halfway must be able to run
again, and skip what is done."""

from alembic import op
from sqlalchemy import inspect


def add_column(table: str, column: str, kind: str) -> None:
    if column not in {each["name"] for each in inspect(op.get_bind()).get_columns(table)}:
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
