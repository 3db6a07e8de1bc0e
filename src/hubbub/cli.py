"""Commands and flags, nothing else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hubbub import __version__
from hubbub.loadtest.command import perftest
from hubbub.logs import start_logging


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


def _cluster_settings(**flags: Any) -> Any:
    settings = _settings(**flags)
    missing = [name for name in ("mysql_url", "amqp_url", "redis_url") if not getattr(settings, name)]
    if missing:
        names = ", ".join(f"HUBBUB_{name.upper()}" for name in missing)
        click.echo(f"hubbub: a cluster needs {names} (or the same in hubbub.toml).", err=True)
        sys.exit(2)
    start_logging(settings.log_format)
    return settings


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
    start_logging(settings.log_format)
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
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 3000]")
def api(host: str | None, port: int | None) -> None:
    """An API process of a cluster: RabbitMQ, MySQL and Redis are named in the settings."""
    from hubbub import wiring
    from hubbub.chat.errors import Unavailable
    from hubbub.http.server import PortTaken, listen
    from hubbub.http.server import serve as run
    from hubbub.stores.migrate import SchemaTooNew

    settings = _cluster_settings(host=host, port=port)
    try:
        run(
            lambda: wiring.api(settings),
            listen(settings.host, settings.port),
            started=lambda url: click.echo(f"Hubbub is ready at {url}"),
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
        )
    except (PortTaken, SchemaTooNew, Unavailable) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@main.command()
@click.option("--host", help="Address of /metrics.  [default: 127.0.0.1]")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Port of /metrics; 0 has none.  [default: 0]")
def writer(host: str | None, metrics_port: int | None) -> None:
    """A writer process of a cluster: takes what is queued to the database."""
    import asyncio
    import signal

    import uvloop

    from hubbub import wiring
    from hubbub.chat.errors import Unavailable
    from hubbub.stores.migrate import SchemaTooNew

    settings = _cluster_settings(host=host, metrics_port=metrics_port)

    async def run() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        told: list[bool] = []

        def started() -> None:
            if not told:
                told.append(True)
                click.echo("Hubbub's writer is ready")

        await wiring.writer(settings, stopped, started)

    try:
        uvloop.run(run())
    except (SchemaTooNew, Unavailable) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@main.command()
@click.argument("number", required=False, type=click.IntRange(1, 256))
def shards(number: int | None) -> None:
    """Show how many queues a cluster's writes are split over, or raise their number while no API process runs."""
    import asyncio

    from hubbub import wiring
    from hubbub.chat.errors import Unavailable
    from hubbub.queues.rabbitmq import LOST

    settings = _cluster_settings()
    try:
        click.echo(asyncio.run(wiring.raise_shards(settings, number)))
    except (wiring.ShardsFixed, Unavailable, *LOST) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@main.group()
def dead() -> None:
    """The messages of a cluster that could not be stored."""


@dead.command("list")
def dead_list() -> None:
    """One line for each: number, when, what, why."""
    for letter in _with_dead(lambda letters: letters.list()):
        what = type(letter.command).__name__ if letter.command else f"unreadable, {letter.size} bytes"
        where = f"{letter.command.chat.token}/{letter.command.chat.number}" if letter.command else ""
        click.echo(f"{letter.number:>4}  {letter.at}  {what:<14}  {where}  {letter.reason}")


@dead.command("show")
@click.argument("number", type=click.IntRange(1))
def dead_show(number: int) -> None:
    """All of one, its text included."""
    import msgspec

    found = [letter for letter in _with_dead(lambda letters: letters.list()) if letter.number == number]
    if not found:
        click.echo(f"There is no dead letter {number}.", err=True)
        sys.exit(1)
    (letter,) = found
    fields = (
        {}
        if letter.command is None
        else {field: getattr(letter.command, field) for field in letter.command.__struct_fields__}
    )
    shown = {"at": letter.at, "reason": letter.reason, "command": type(letter.command).__name__, **fields}
    click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())


def _chosen(numbers: tuple[int, ...], everything: bool) -> Callable[[int], bool]:
    if bool(numbers) == everything:
        raise click.UsageError("name the numbers that `hubbub dead list` shows, or --all")
    return lambda number: everything or number in numbers


@dead.command("retry")
@click.argument("numbers", type=click.IntRange(1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every one there is.")
def dead_retry(numbers: tuple[int, ...], everything: bool) -> None:
    """Send them through the queue again."""
    chosen = _chosen(numbers, everything)
    click.echo(f"{_with_dead(lambda letters: letters.retry(chosen))} sent again")


@dead.command("drop")
@click.argument("numbers", type=click.IntRange(1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every one there is.")
def dead_drop(numbers: tuple[int, ...], everything: bool) -> None:
    """Delete them for good."""
    chosen = _chosen(numbers, everything)
    click.echo(f"{_with_dead(lambda letters: letters.drop(chosen))} dropped")


def _with_dead(work: Callable[[Any], Any]) -> Any:
    import asyncio

    from hubbub import wiring
    from hubbub.chat.errors import Unavailable
    from hubbub.queues.rabbitmq import LOST

    settings = _cluster_settings()

    async def run() -> Any:
        async with wiring.dead_letters(settings) as letters:
            return await work(letters)

    try:
        return asyncio.run(run())
    except (Unavailable, *LOST) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@main.group()
def search() -> None:
    """The search index."""


@search.command("rebuild")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder of the embedded mode.")
def search_rebuild(data: Path | None) -> None:
    """Make the index anew, while the old one goes on answering. Embedded: the running service does it, or the next."""
    from hubbub.data_folder import REBUILD, DataFolder, FolderUnusable

    settings = _settings(data=data)
    if settings.search_url and data is None:
        _rebuild_cluster(settings)
        return
    try:
        DataFolder.ask(settings.data, REBUILD)
    except (FolderUnusable, OSError) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo("Asked for; the service's log says when it is done.")


def _rebuild_cluster(settings: Any) -> None:
    from hubbub import wiring
    from hubbub.chat.errors import Unavailable
    from hubbub.search.elastic import Refused

    try:
        count = wiring.rebuild_search(settings, lambda so_far: click.echo(f"{so_far} messages", err=True))
    except (Unavailable, Refused) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo(f"The search index was made anew: {count} messages.")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--data", type=click.Path(path_type=Path), help="The data folder.  [default: ./hubbub-data]")
def backup(file: Path, data: Path | None) -> None:
    """Write the embedded mode's data into FILE, also while it serves."""
    from hubbub.backup import BackupFailed, back_up

    try:
        size = back_up(_settings(data=data).data, file)
    except BackupFailed as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo(f"Wrote {file}, {size / 1e6:.1f} MB.")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--data", type=click.Path(path_type=Path), help="A new folder.  [default: ./hubbub-data]")
def restore(file: Path, data: Path | None) -> None:
    """Make a data folder from a backup. Serve it, and the search index is made anew."""
    from hubbub.backup import BackupFailed
    from hubbub.backup import restore as put_back

    folder = _settings(data=data).data
    try:
        count = put_back(file, folder)
    except BackupFailed as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo(f"Restored {count} messages into {folder}.")


@main.command()
@click.option("--data", type=click.Path(path_type=Path), help="The data folder.  [default: ./hubbub-data]")
def doctor(data: Path | None) -> None:
    """Check the settings, this machine and every part, with the mend for each fault: exit status 0 well, 1 ill."""
    from hubbub.doctor import examine

    ill = False
    logging.disable(logging.CRITICAL)  # what a client library says of a fault is in the finding
    for finding in examine(_settings(data=data)):
        mark = "✓" if not finding.mend else "✗" if finding.serious else "!"
        click.echo(f"{mark} {finding.part}: {finding.said}")
        if finding.mend:
            click.echo(f"    {finding.mend}")
        ill = ill or mark == "✗"
    sys.exit(1 if ill else 0)


@main.command()
def config() -> None:
    """Print the settings in force, passwords hidden."""
    from hubbub.settings import shown

    for name, value in shown(_settings()).items():
        click.echo(f"{name} = {value}")


main.add_command(perftest)
