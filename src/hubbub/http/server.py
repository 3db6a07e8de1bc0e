"""Runs an Edge under uvicorn's Server until a signal comes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
import uvloop

from hubbub import __version__
from hubbub.http.acceptor import Acceptor
from hubbub.http.connection import Connection
from hubbub.http.edge import MAX_CONNECTIONS, OTHER_FILES, Edge
from hubbub.http.handshake import Handshakes

log = logging.getLogger("hubbub")

LEAVE_S = 3.0  # for clients with an open connection to be answered once more, and told to take another
GRACE_S = 30.0  # for a request that has begun to be answered


class PortTaken(Exception):
    """The process can't listen on the address; the text says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortTaken
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise PortTaken(
            f"Can't listen on {host} port {port}: {error.strerror}. Choose others with --host and --port."
        ) from error
    return listener


class Server(uvicorn.Server):
    """uvicorn's server, which accepts clients and stops in our own way. ``started`` gets the URL."""

    def __init__(
        self, config: uvicorn.Config, edge: Edge, listener: socket.socket, started: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._edge = edge
        self._listener = listener
        self._started = started
        self._acceptor: Acceptor | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._reason = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        context = self.config.ssl
        await super().startup([])
        take = self._connect if context is None else Handshakes(self._edge, context).take
        self._acceptor = Acceptor(self._listener, self.config.backlog, take)
        host, port = self._listener.getsockname()[:2]
        scheme = "https" if self.config.ssl else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        log_start(f"at {url}", url=url)
        self._started(url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops the server, the second one at once."""
        self._reason = self._reason or signal.Signals(sig).name
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop without cutting a client off: refuse new connections, and give each open one a last answer with
        ``Connection: close``. Idle connections are not waited for long.
        """
        log_stop(self._reason)
        edge = self._edge
        if self._acceptor is not None:
            self._acceptor.stop()
        edge.stop()
        await asyncio.gather(*self._connecting)
        await self._all_gone(LEAVE_S)
        for connection in list(edge.connections):
            connection.leave()
        await self._all_gone(GRACE_S)
        for connection in list(edge.connections):
            connection.abort()

    def _connect(self, client: socket.socket) -> None:
        """Without TLS."""
        task = asyncio.get_running_loop().create_task(self._connected(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, client: socket.socket) -> None:
        with suppress(OSError):  # it has gone
            await asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(self._edge), client)

    async def _all_gone(self, within_s: float) -> None:
        until = time.monotonic() + within_s
        while self._edge.connections and not self.force_exit and time.monotonic() < until:  # noqa: ASYNC110 - a signal
            await asyncio.sleep(0.02)


def log_start(what: str, **fields: str) -> None:
    """The line that a process writes once it is ready."""
    about = {"version": __version__, "pid": os.getpid(), **fields}
    log.info("Hubbub %s has started %s, process %d.", __version__, what, os.getpid(), extra=about)


def log_stop(reason: str) -> None:
    """The line that a process writes when it begins to stop. ``reason`` is a signal's name."""
    log.info("Hubbub %s is stopping: %s.", __version__, reason, extra={"version": __version__, "reason": reason})


def log_end() -> None:
    """The last line of a process that has finished what it had accepted."""
    log.info("Hubbub %s has stopped.", __version__, extra={"version": __version__})


def _allow_files() -> None:
    """Raise the limit of open files to what all connections need, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def serve(
    system: Callable[[], AbstractAsyncContextManager[Edge]],
    listener: socket.socket,
    *,
    started: Callable[[str], None],
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted and return; a second one ends it at once."""

    _allow_files()

    async def main() -> None:
        async with system() as edge:
            config = uvicorn.Config(
                edge.app,
                http=cast(Any, Connection),
                lifespan="off",
                ws="none",
                log_config=None,
                backlog=2048,
                ssl_certfile=tls_cert,
                ssl_keyfile=tls_key,
            )
            # What start-up made lives as long as the process: keep it out of every later collection.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            await Server(config, edge, listener, started).serve(sockets=[listener])
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)  # another one while the rest is finished ends that too

    # uvicorn raises the signal again once it has shut down, for the handlers that were there before its own. Ours
    # have nothing left to do: the process ends with status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvloop.run(main())
    log_end()
