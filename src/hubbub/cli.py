"""Commands and flags, nothing else."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from hubbub import __version__
from hubbub.logs import start_logging, tell


def _settings(*, files: bool = False, service: bool = False, **flags: Any) -> Any:
    """The settings in force, or the end of the process. A ``service`` begins to log, in the form that is set."""
    from hubbub.settings import SettingsWrong, load, warnings

    try:
        settings = load(files=files, **flags)
    except SettingsWrong as error:
        for fault in error.faults:
            tell(error.log_format if service else "text", fault, logging.ERROR)
        sys.exit(2)
    form = settings.log_format if service else "text"
    for warning in warnings():
        tell(form, warning, logging.WARNING)
    if service:
        start_logging(form, access=settings.access_log)
    return settings


def _cluster_settings(*, service: bool = False, **flags: Any) -> Any:
    settings = _settings(service=service, **flags)
    missing = [name for name in ("mysql_url", "amqp_url", "redis_url") if not getattr(settings, name)]
    if missing:
        names = ", ".join(f"HUBBUB_{name.upper()}" for name in missing)
        form = settings.log_format if service else "text"
        tell(form, f"a cluster needs {names} (or the same in hubbub.toml).", logging.ERROR)
        sys.exit(2)
    if not service:
        start_logging("text")
    return settings


def _refuse(settings: Any, error: object) -> NoReturn:
    """The end of a service that can't run."""
    tell(settings.log_format, str(error), logging.ERROR)
    sys.exit(1)


class _Commands(click.Group):
    """Loads the performance test only when it is called: a service starts faster without it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "perftest"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "perftest":
            from hubbub.loadtest.command import perftest

            return perftest
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """A chat API that loses nothing it has acknowledged, and the performance test that proves it."""
    _open_standard_files()


def _open_standard_files() -> None:
    """Where the caller closed stdin, stdout or stderr (``>&-``), a socket would get its number, and libuv aborts."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
        os.set_inheritable(number, True)
    os.close(number)


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", metavar="NUMBER", help="Port to listen on; 0 takes a free one.  [default: 3000]")
@click.option("--data", metavar="FOLDER", help="The data folder.  [default: ./hubbub-data]")
@click.option("--processes", metavar="NUMBER", help="Processes that serve; 0 takes what suits the cores.  [default: 0]")
def serve(host: str | None, port: str | None, data: str | None, processes: str | None) -> None:
    """Run everything on this machine; no other server is needed."""
    import sqlite3

    from hubbub.embedded.data_folder import DataFolder, FolderUnusable
    from hubbub.embedded.processes import Place, Processes
    from hubbub.embedded.service import serving, serving_beside, setup_code
    from hubbub.exposure import risks
    from hubbub.http.server import PortTaken, listen_shared, serve_until_told
    from hubbub.http.server import serve as run
    from hubbub.schema import SchemaTooNew

    settings = _settings(files=True, service=True, host=host, port=port, data=data, processes=processes)
    try:
        folder = DataFolder.open(settings.data)
        count = settings.serving_processes
        others = Processes(folder, count)
        listeners = listen_shared(settings.host, settings.port, count)
        for risk in risks(settings, listeners[0].getsockname()[0]):
            logging.getLogger("hubbub").warning(risk)
        tls: Any = {"tls_cert": settings.tls_cert, "tls_key": settings.tls_key}

        def beside(place: Place, listener: socket.socket, told: socket.socket) -> None:
            system = partial(serving_beside, settings, folder, place)
            serve_until_told(system, listener, told, started=lambda url: None, **tls)

        first = others.fork_serving(listeners, beside)
        code = setup_code(settings, folder)

        def started(url: str) -> None:
            text = f"Hubbub is ready at {url}"
            fields: dict[str, Any] = {"url": url}
            if code is not None:
                link = _setup_link(settings, url, code)
                if settings.log_format == "json":
                    fields["setup_link"] = link
                else:  # at once: who waits for the first line may read no more
                    text += f"\nThere is no operator yet. This link makes the operator's account, {_ONCE}: {link}"
            tell(settings.log_format, text, **fields)

        run(
            lambda: serving(settings, folder, first, others),
            listeners[0],
            started=started,
            stopping=others.stop_serving,
            **tls,
        )
        folder.close()
    except (FolderUnusable, PortTaken, SchemaTooNew) as error:
        _refuse(settings, error)
    except sqlite3.Error as error:
        _refuse(settings, f"the database in {settings.data} can't be opened: {error}.")


_ONCE = "once and within 24 hours"


def _setup_link(settings: Any, url: str, code: str) -> str:
    """``url`` is the service's own address: a browser can't go to one that stands for all of a machine's."""
    base = settings.public_url.rstrip("/") or url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    return f"{base}/setup#{code}"


@main.command(short_help="Run an API process of a cluster.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", metavar="NUMBER", help="Port to listen on; 0 takes a free one.  [default: 3000]")
def api(host: str | None, port: str | None) -> None:
    """Run an API process of a cluster; the settings name RabbitMQ, MySQL and Redis."""
    from hubbub.chat.errors import Unavailable
    from hubbub.cluster.processes import OtherServers
    from hubbub.cluster.service import serving
    from hubbub.exposure import risks
    from hubbub.http.server import PortTaken, listen
    from hubbub.http.server import serve as run
    from hubbub.schema import SchemaTooNew

    settings = _cluster_settings(files=True, service=True, host=host, port=port)
    try:
        listener = listen(settings.host, settings.port)
        for risk in risks(settings, listener.getsockname()[0]):
            logging.getLogger("hubbub").warning(risk)
        run(
            lambda: serving(settings),
            listener,
            started=lambda url: tell(settings.log_format, f"Hubbub is ready at {url}", url=url),
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
        )
    except (OtherServers, PortTaken, SchemaTooNew, Unavailable) as error:
        _refuse(settings, error)


@main.command(short_help="Run a writer process of a cluster.")
@click.option("--host", help="Address of /metrics.  [default: 127.0.0.1]")
@click.option("--metrics-port", metavar="NUMBER", help="Port of /metrics; 0 has none.  [default: 0]")
def writer(host: str | None, metrics_port: str | None) -> None:
    """Run a writer process of a cluster, which stores queued writes in the database."""
    import asyncio
    import signal

    import uvloop

    from hubbub.chat.errors import Unavailable
    from hubbub.cluster.service import writing_until
    from hubbub.http.server import PortTaken, ending_signals, log_end, log_start, log_stop
    from hubbub.schema import SchemaTooNew

    settings = _cluster_settings(service=True, host=host, metrics_port=metrics_port)

    async def run() -> None:
        stopped = asyncio.Event()

        def stop(number: signal.Signals) -> None:
            if not stopped.is_set():
                log_stop(number.name)
            stopped.set()

        for number in ending_signals():
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        announced: list[bool] = []

        def started() -> None:
            if not announced:
                announced.append(True)
                log_start("a writer")
                tell(settings.log_format, "Hubbub's writer is ready")

        await writing_until(settings, stopped, started)

    try:
        uvloop.run(run())
    except (PortTaken, SchemaTooNew, Unavailable) as error:
        _refuse(settings, error)
    log_end()


@main.command(short_help="Show a cluster's shards, or raise their number.")
@click.argument("number", required=False, type=click.IntRange(1, 256))
@click.option(
    "--accept-loss", is_flag=True, help="Let stopped shards continue without the deliveries that are missing from them."
)
def shards(number: int | None, accept_loss: bool) -> None:
    """Show over how many shards a cluster's writes are split, and which have stopped; or raise their number while no
    API process runs."""
    import asyncio

    from hubbub.chat.errors import Unavailable
    from hubbub.cluster.broker import LOST
    from hubbub.cluster.service import ShardsFixed, raise_shards, stopped_shards

    settings = _cluster_settings()
    try:
        click.echo(asyncio.run(raise_shards(settings, number)))
        for line in stopped_shards(settings, accept_loss=accept_loss):
            click.echo(line)
    except (ShardsFixed, Unavailable, *LOST) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@main.group(short_help="List, retry or drop commands that could not be stored.")
def dead() -> None:
    """List, retry or drop a cluster's commands that could not be stored and were set aside."""


def _dead_letters() -> Any:
    """The rows, the address of the queue, and the number of shards."""
    from hubbub.chat.errors import Unavailable
    from hubbub.cluster.service import open_dead_letters

    settings = _cluster_settings()
    try:
        return open_dead_letters(settings)
    except Unavailable as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@dead.command("list")
def dead_list() -> None:
    """List them, one line each: number, time, command, chat, reason."""
    from hubbub.cluster.protocol import kind_of

    dead_letters, *_ = _dead_letters()
    for each in dead_letters.list():
        what = kind_of(each.command) if each.command else f"unreadable, {each.size} bytes"
        where = f"{each.command.chat.token}/{each.command.chat.number}" if each.command else ""
        note = "" if each.acknowledged else "  (not acknowledged)"
        click.echo(f"{each.number:>4}  {each.at}  {what:<14}  {where}  {each.reason}{note}")


@dead.command("show")
@click.argument("number", type=click.IntRange(1))
def dead_show(number: int) -> None:
    """Show all of one, with its text."""
    import msgspec

    from hubbub.cluster.protocol import kind_of

    dead_letters, *_ = _dead_letters()
    found = [each for each in dead_letters.list() if each.number == number]
    if not found:
        click.echo(f"There is no dead letter {number}.", err=True)
        sys.exit(1)
    (letter,) = found
    fields = (
        {}
        if letter.command is None
        else {field: getattr(letter.command, field) for field in letter.command.__struct_fields__}
    )
    shown = {
        "at": letter.at,
        "reason": letter.reason,
        "command": kind_of(letter.command) if letter.command else "unreadable",
        **fields,
    }
    click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())


def _chosen(numbers: tuple[int, ...], everything: bool) -> Callable[[int], bool]:
    if bool(numbers) == everything:
        raise click.UsageError("name the numbers that `hubbub dead list` shows, or --all")
    return lambda number: everything or number in numbers


@dead.command("retry")
@click.argument("numbers", type=click.IntRange(1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def dead_retry(numbers: tuple[int, ...], everything: bool) -> None:
    """Send them through the queue again."""
    import asyncio

    from hubbub.cluster.broker import LOST

    chosen = _chosen(numbers, everything)
    dead_letters, url, count = _dead_letters()
    try:
        click.echo(f"{asyncio.run(dead_letters.retry(url, count, chosen))} sent again")
    except LOST as error:
        click.echo(f"hubbub: RabbitMQ can't be reached: {error}", err=True)
        sys.exit(1)


@dead.command("drop")
@click.argument("numbers", type=click.IntRange(1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def dead_drop(numbers: tuple[int, ...], everything: bool) -> None:
    """Delete them permanently."""
    chosen = _chosen(numbers, everything)
    dead_letters, *_ = _dead_letters()
    click.echo(f"{dead_letters.drop(chosen)} dropped")


@main.group()
def search() -> None:
    """The search index."""


@search.command("rebuild")
@click.option("--data", metavar="FOLDER", help="Data folder of the embedded mode.")
def search_rebuild(data: str | None) -> None:
    """Rebuild the index while searches use the old one. With --data, the running service does it, or the next one."""
    from hubbub.embedded.data_folder import REBUILD, DataFolder, FolderUnusable

    settings = _settings(data=data)
    if settings.search_url and data is None:
        _rebuild_cluster(settings)
        return
    try:
        DataFolder.ask(settings.data, REBUILD)
    except (FolderUnusable, OSError) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo("The rebuild was requested; the service's log says when it is done.")


def _rebuild_cluster(settings: Any) -> None:
    from hubbub.chat.errors import Unavailable
    from hubbub.cluster.search import Refused
    from hubbub.cluster.service import rebuild_search

    try:
        count = rebuild_search(settings, lambda so_far: click.echo(f"{so_far} messages", err=True))
    except (Unavailable, Refused) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo(f"The search index was rebuilt: {count} messages.")


@main.group(short_help="Delete an account, or give it a new password.")
def users() -> None:
    """Change accounts of a data folder, or of the cluster that the settings name if --data is not given. The service
    may be running."""


_DATA = click.option("--data", metavar="FOLDER", help="The data folder.  [default: ./hubbub-data]")


@users.command("reset-password", short_help="Give an account a new password, and print it.")
@click.argument("email")
@_DATA
def users_reset_password(email: str, data: str | None) -> None:
    """Give an account a new password, print it, and end all sessions of the account."""
    import asyncio
    import secrets

    from hubbub.chat.commands import SetPassword
    from hubbub.http.passwords import Argon2Passwords

    password, passwords = secrets.token_urlsafe(12), Argon2Passwords()
    hashed = asyncio.run(passwords.hash(password))
    passwords.close()
    _change_account(email, data, lambda user_id: SetPassword(user_id, hashed, secrets.token_urlsafe(9)))
    click.echo(f"The new password of {email}; all sessions have ended:", err=True)
    click.echo(password)


@users.command("delete")
@click.argument("email")
@click.option(
    "--messages",
    type=click.Choice(["keep", "erase"]),
    default="keep",
    help='Keep them under the name "Deleted user", or let the service erase them when it runs.  [default: keep]',
)
@_DATA
def users_delete(email: str, messages: str, data: str | None) -> None:
    """Delete an account. If it owns applications, it must hand them over or delete them first."""
    import secrets

    from hubbub.chat.commands import DeleteUser

    _change_account(email, data, lambda user_id: DeleteUser(user_id, secrets.token_urlsafe(9), messages == "erase"))
    click.echo(f"The account {email} was deleted.")


def _change_account(email: str, data: str | None, command: Callable[[int], Any]) -> None:
    import asyncio

    from hubbub.chat.errors import ChatError
    from hubbub.embedded.data_folder import FolderUnusable
    from hubbub.schema import SchemaTooNew

    settings = _settings(data=data)
    try:
        if settings.mysql_url and data is None:
            from hubbub.cluster.users import change_account as change_in_cluster

            asyncio.run(change_in_cluster(_cluster_settings(), email, command))
        else:
            from hubbub.embedded.users import change_account

            change_account(settings.data, email, command)
    except (ChatError, FolderUnusable, SchemaTooNew) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@main.group(short_help="List, add or remove operators.")
def operators() -> None:
    """Operators, who see the console's operator page: of a data folder, or of the cluster that the settings name. A
    change takes effect at once in a running service."""


@contextmanager
def _operators(data: str | None) -> Iterator[tuple[Any, Any]]:
    """The settings, and the operators of what they name."""
    from hubbub.administration import CantOpen, opened
    from hubbub.chat.errors import ChatError
    from hubbub.chat.operators import Operators

    settings = _settings(data=data)
    try:
        with opened(settings, data) as store:
            yield settings, Operators(store, settings.operators)
    except (CantOpen, ChatError) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)


@operators.command("add")
@click.argument("email")
@_DATA
def operators_add(email: str, data: str | None) -> None:
    """Make the account with this email an operator. If there is no account, print a link that creates it."""
    import asyncio
    import time

    if "@" not in email:
        raise click.BadParameter(f"{email!r} is not an email address.", param_hint="EMAIL")
    with _operators(data) as (settings, all_operators):
        found = asyncio.run(all_operators.add(email, time.time_ns() // 1_000_000))
        if not isinstance(found, str):
            click.echo(f"{found.email} ({found.name}) is an operator.")
            return
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}"
        click.echo(f"There is no account with the email {email}. This link creates it, as an operator, {_ONCE}:")
        click.echo(_setup_link(settings, url, found))


@operators.command("list", short_help="List them, one line each.")
@_DATA
def operators_list(data: str | None) -> None:
    """List them, one line each: email, name, and why the account is an operator."""
    import asyncio

    with _operators(data) as (_, all_operators):
        for user in asyncio.run(all_operators.all()):
            how = "  (named in the setting operators)" if user.email in all_operators.named else ""
            click.echo(f"{user.email}  {user.name}{how}")


@operators.command("remove")
@click.argument("email")
@_DATA
def operators_remove(email: str, data: str | None) -> None:
    """Remove an operator. The account stays; an unused link for this email becomes invalid."""
    from hubbub.chat.accounts import normalized_email

    with _operators(data) as (_, all_operators):
        all_operators.remove(email)
        if normalized_email(email) in all_operators.named:
            click.echo(
                f"{email} is named in the setting operators, and stays an operator until it is removed there.", err=True
            )
            sys.exit(1)
        click.echo(f"{email} is not an operator.")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--data", metavar="FOLDER", help="The data folder.  [default: ./hubbub-data]")
def backup(file: Path, data: str | None) -> None:
    """Back up a data folder into FILE, also while it is being served."""
    from hubbub.embedded.backup import BackupFailed, back_up

    try:
        size = back_up(_settings(data=data).data, file)
    except BackupFailed as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo(f"Wrote {file}, {size / 1e6:.1f} MB.")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--data", metavar="FOLDER", help="A new folder.  [default: ./hubbub-data]")
def restore(file: Path, data: str | None) -> None:
    """Make a data folder from a backup. The search index is rebuilt when it is served."""
    from hubbub.embedded.backup import BackupFailed
    from hubbub.embedded.backup import restore as put_back

    folder = _settings(data=data).data
    try:
        count = put_back(file, folder)
    except BackupFailed as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    click.echo(f"Restored {count} messages into {folder}.")


@main.command(short_help="Move a data folder into a cluster's empty database.")
@click.option("--data", metavar="FOLDER", help="The data folder.  [default: ./hubbub-data]")
def move(data: str | None) -> None:
    """Move the data of a stopped `hubbub serve` into the empty database of a cluster that is not started yet.

    The settings name the cluster. If the move is interrupted, run it again: it starts over."""
    import sqlite3

    from hubbub.cluster.load import LoadFailed
    from hubbub.embedded.data_folder import FolderUnusable
    from hubbub.move import move as move_all
    from hubbub.schema import SchemaTooNew

    settings = _cluster_settings(data=data)
    try:
        counts = move_all(settings, lambda line: click.echo(line, err=True))
    except (FolderUnusable, LoadFailed, SchemaTooNew) as error:
        click.echo(f"hubbub: {error}", err=True)
        sys.exit(1)
    except sqlite3.Error as error:
        click.echo(f"hubbub: the database in {settings.data} can't be read: {error}.", err=True)
        sys.exit(1)
    click.echo(f"Moved {settings.data}. The database has as many rows as the folder:")
    for table, count in counts.items():
        click.echo(f"{count:>12}  {table}")
    if settings.search_url:
        click.echo("Build the search index now, or while the cluster serves: hubbub search rebuild")
    click.echo("Start the cluster: hubbub writer, then hubbub api. `hubbub serve` refuses the folder from now on.")


@main.command(short_help="Check the settings, this machine and every part.")
@click.option("--data", metavar="FOLDER", help="The data folder.  [default: ./hubbub-data]")
def doctor(data: str | None) -> None:
    """Check the settings, this machine and every part, with the fix for each fault. Exit status 2 when a setting is
    wrong, 1 when something else does not work, else 0."""
    from hubbub.doctor import examine

    failed, settings = False, _settings(files=True, data=data)
    logging.disable(logging.CRITICAL)  # what a client library says of a fault is in the finding
    for finding in examine(settings):
        mark = "✓" if not finding.fix else "✗" if finding.serious else "!"
        click.echo(f"{mark} {finding.part}: {finding.said}")
        if finding.fix:
            click.echo(f"    {finding.fix}")
        failed = failed or mark == "✗"
    sys.exit(1 if failed else 0)


@main.command()
def config() -> None:
    """Print the settings in force, passwords hidden."""
    from hubbub.settings import shown

    for name, value in shown(_settings(files=True)).items():
        click.echo(f"{name} = {value}")
