"""The service under test: one that the user names, or a private one."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import click
import uvloop

from hubbub.loadtest.accounts import Accounts, SetupFailed
from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.fleet import GeneratorLost
from hubbub.loadtest.process import ENDING, StackFailed
from hubbub.loadtest.report import heading
from hubbub.loadtest.servers import ServerMissing
from hubbub.loadtest.stack import EmbeddedStack
from hubbub.loadtest.usage import listener

UNREACHABLE = 3
RUNNING = "http://127.0.0.1:3000"

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """``pids`` are those of its processes that run on this machine, by name, as far as they are known."""

    url: str
    pids: dict[str, int]
    accounts: Accounts


@contextmanager
def service(url: str | None, stack_name: str | None, *, keep: bool) -> Iterator[Service]:
    """The service at ``url``, or a private one where that is None. What was made in one that is not private is deleted
    at the end, unless ``keep``; a private one is stopped, and its data deleted.

    What can go wrong with it ends the process, with one line: status 3, or 130 after Ctrl-C, SIGTERM and SIGHUP.
    """
    _heed()
    try:
        with ExitStack() as stack:
            if url is None:
                private: EmbeddedStack | ClusterStack = ClusterStack() if stack_name == "cluster" else EmbeddedStack()
                stack.enter_context(private)
                tested = Service(private.url, private.pids, Accounts(private.url))
            else:
                pid = listener(url)
                tested = Service(url, {"Service": pid} if pid else {}, Accounts(url))
                stack.callback(_tell_kept if keep else _remove, tested.accounts)
            click.echo(heading("Hubbub Performance Test"))
            click.echo(f"Service:        {tested.url}{'' if url else ' (started for this test)'}")
            if url is None and _answers():
                click.echo(f"Another service answers at {RUNNING}; it is not tested (use --running for that).")
            yield tested
    except (SetupFailed, StackFailed, ServerMissing, GeneratorLost) as error:
        _end(str(error), UNREACHABLE)
    except OSError as error:  # no temporary folder, or no room for the output
        if error.errno == errno.EPIPE:
            raise
        _end(str(error), UNREACHABLE)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work in a loop; what interrupts cancels it and becomes a KeyboardInterrupt when it has cleaned up."""

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            for number in _heeded():
                loop.add_signal_handler(number, task.cancel)
        return await work

    try:
        return uvloop.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        _heed()


def _heed() -> None:
    """Treat the signals alike, so that everything that was started is stopped."""
    for number in _heeded():
        signal.signal(number, _interrupt)


def _heeded() -> list[signal.Signals]:
    """The signals that interrupt; nohup keeps SIGHUP ignored."""
    return [each for each in ENDING if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(why: str, status: int) -> NoReturn:
    with suppress(OSError):  # there may be no terminal any more
        click.echo(f"perftest: {why}", err=True)
    sys.exit(status)


def _remove(accounts: Accounts) -> None:
    if not accounts.described:
        return
    with suppress(OSError):  # the reader of the output may have gone
        click.echo("Deleting what the test created in the service")
    why: str | None = "the deletion was interrupted"
    with suppress(KeyboardInterrupt):  # a second Ctrl-C: the run has ended, and this ends the deletion
        why = run(accounts.remove())
    if why is not None:
        click.echo(f"perftest: left in the service, as {why}: {accounts.described}, and what they own", err=True)


def _tell_kept(accounts: Accounts) -> None:
    if accounts.described:
        click.echo(f"Kept in the service: {accounts.described}, with the password {accounts.password}")


def _answers() -> bool:
    try:
        parts = urlsplit(RUNNING)
        with socket.create_connection((parts.hostname, parts.port), timeout=1):
            return True
    except OSError:
        return False
