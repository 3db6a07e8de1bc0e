"""Brings a database to the schema that this version knows, or refuses one that a newer version wrote.

Each mode has a folder of migrations and knows how to run them whole; what is the same for both is here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection


class SchemaTooNew(Exception):
    """The database was written by a newer version of Hubbub."""


def behind(migrations: Path, current: str | None, where: str) -> bool:
    """Whether a database at the migration ``current`` lacks some. ``where`` names it in errors.

    Raises:
        SchemaTooNew: it has a migration that this version does not know.
    """
    known = sorted(file.stem.split("_")[0] for file in migrations.glob("[0-9]*.py"))
    if current is not None and current not in known:
        raise SchemaTooNew(
            f"{where} was written by a newer Hubbub (schema {current}; this one knows up to {known[-1]}). "
            "Start the newer version, or restore a backup made with this one."
        )
    return current != known[-1]


def config(migrations: Path, connection: Connection) -> Config:
    """What Alembic needs to run the folder's migrations over an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("version_locations", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
