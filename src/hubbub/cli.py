"""Commands and flags, nothing else."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from hubbub import __version__
from hubbub.loadtest.command import perftest


def _settings(**flags: Any) -> Any:
    from pydantic import ValidationError

    from hubbub.settings import load

    try:
        return load(**flags)
    except ValidationError as error:
        for wrong in error.errors():
            name = ".".join(str(part) for part in wrong["loc"])
            click.echo(f"Setting {name}: {wrong['msg']} (got {wrong['input']!r}).", err=True)
        sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """A chat API that loses nothing it has acknowledged, and the performance test that proves it."""


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 3000]")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The data folder.  [default: ./hubbub-data]"
)
def serve(host: str | None, port: int | None, data: Path | None) -> None:
    """Everything in one process; no other server is needed."""
    import sqlite3

    from hubbub import wiring
    from hubbub.data_folder import DataFolder, FolderUnusable
    from hubbub.http.server import PortTaken, listen
    from hubbub.http.server import serve as run
    from hubbub.stores.migrate import SchemaTooNew

    settings = _settings(host=host, port=port, data=data)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        folder = DataFolder.open(settings.data)
        listener = listen(settings.host, settings.port)
        run(
            lambda: wiring.embedded(settings, folder),
            listener,
            started=lambda url: click.echo(f"Hubbub is ready at {url}"),
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
        )
        folder.close()
    except (FolderUnusable, PortTaken, SchemaTooNew) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    except sqlite3.Error as error:
        click.echo(f"hubbub: the database in {settings.data} can't be opened: {error}.", err=True)
        sys.exit(1)


@main.command()
def config() -> None:
    """Print the settings in force."""
    for name, value in _settings():
        click.echo(f"{name} = {value}")


main.add_command(perftest)
