"""Runs an Edge under uvicorn's Server, until a signal comes or the process that had the signal says so."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
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

_BACKLOG = 2048  # clients of a listening socket that have connected and wait to be accepted
LEAVE_S = 3.0  # for clients with an open connection to be answered once more, and told to take another
GRACE_S = 30.0  # for a request that has begun to be answered


class PortTaken(Exception):
    """The process can't listen on the address; the text says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortTaken
    """
    with _or_taken(host, port):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bound(socket.socket(family, kind, protocol), address)


def listen_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """Sockets on one address, for as many processes: the system spreads the clients over them. Each process keeps one
    and closes the others. If there are several, clients can connect to each from now on, and wait to be accepted.

    Raises:
        PortTaken
    """
    first = listen(host, port)
    listeners = [first]
    if count == 1:
        return listeners
    try:
        with _or_taken(host, port):
            # In this order, another service is refused even if the same user runs it. The first socket listens while
            # its address is not shared: the system allows that only to one that has the address alone, and refuses
            # every later one that does not share it from the start, as the first one of another service. If the first
            # only bound the address, SO_REUSEADDR would let another service bind it too, and both would share it.
            first.listen(_BACKLOG)
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for _ in range(count - 1):
                other = socket.socket(first.family, first.type, first.proto)
                listeners.append(other)
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                _bound(other, first.getsockname()).listen(_BACKLOG)
    except PortTaken:
        for each in listeners:
            each.close()
        raise
    return listeners


def _bound(listener: socket.socket, address: Any) -> socket.socket:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


@contextmanager
def _or_taken(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PortTaken(
            f"Can't listen on {host} port {port}: {error.strerror}. Choose others with --host and --port."
        ) from error


class Server(uvicorn.Server):
    """uvicorn's server, which accepts clients and stops in our own way. ``started`` gets the URL; ``stopping`` is
    called when it begins to stop."""

    def __init__(
        self,
        config: uvicorn.Config,
        edge: Edge,
        listener: socket.socket,
        started: Callable[[str], None],
        stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._edge = edge
        self._listener = listener
        self._started = started
        self._stopping = stopping
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

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            before = {number: signal.signal(number, self.handle_exit) for number in ending_signals()}
            yield
            for number, handler in before.items():
                signal.signal(number, handler)
        for number in ending_signals():
            signal.signal(number, signal.SIG_DFL)  # another one while the rest is finished ends that too

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
        self._stopping()
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


class ToldServer(Server):
    """Stops when the other end of ``told`` is closed, and takes no signals."""

    def __init__(
        self,
        config: uvicorn.Config,
        edge: Edge,
        listener: socket.socket,
        started: Callable[[str], None],
        told: socket.socket,
    ) -> None:
        super().__init__(config, edge, listener, started, stopping=lambda: None)
        self._reason = "the first process"
        # Asks the system, and neither reads the socket nor makes it non-blocking: it may serve for more than this.
        self._closed = select.poll()
        self._closed.register(told, select.POLLRDHUP)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls this ten times a second, and looks for signals here too."""
        self.should_exit = self.should_exit or bool(self._closed.poll(0))
        return await super().on_tick(counter)


def log_start(what: str, **fields: str) -> None:
    """The line that a process writes once it is ready."""
    log.info("Hubbub %s has started %s, process %d.", __version__, what, os.getpid(), extra=_about(**fields))


def ending_signals() -> list[signal.Signals]:
    """The signals that stop a process. SIGHUP comes when its terminal is closed, unless it was started with nohup."""
    hears_it = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hears_it else [])]


def log_stop(reason: str) -> None:
    """The line that a process writes when it begins to stop. ``reason`` is a signal's name, or who says so."""
    extra = _about(reason=reason)
    log.info("Hubbub %s is stopping: %s, process %d.", __version__, reason, os.getpid(), extra=extra)


def log_end() -> None:
    """The last line of a process that has finished what it had accepted."""
    log.info("Hubbub %s has stopped, process %d.", __version__, os.getpid(), extra=_about())


def _about(**fields: str) -> dict[str, object]:
    return {"version": __version__, "pid": os.getpid(), **fields}


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
    stopping: Callable[[], None] = lambda: None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve until one of ``ending_signals``, then finish what was accepted and return; a second one ends it at once.
    ``stopping`` is called when it begins to stop, to tell other processes.
    """

    def server(config: uvicorn.Config, edge: Edge) -> Server:
        return Server(config, edge, listener, started, stopping)

    # uvicorn raises the signal again once it has shut down, for the handlers that were there before its own. Ours
    # have nothing left to do: the process ends with status 0.
    for number in ending_signals():
        signal.signal(number, lambda *_: None)
    _run(system, server, tls_cert, tls_key)


def serve_until_told(
    system: Callable[[], AbstractAsyncContextManager[Edge]],
    listener: socket.socket,
    told: socket.socket,
    *,
    started: Callable[[str], None],
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve in a process beside the first one, until the other end of ``told`` is closed (or no longer writes), then
    finish what was accepted and return. Installs no signal handler: the process ignores those that end already.
    """
    _run(system, lambda config, edge: ToldServer(config, edge, listener, started, told), tls_cert, tls_key)


def _run(
    system: Callable[[], AbstractAsyncContextManager[Edge]],
    server: Callable[[uvicorn.Config, Edge], Server],
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    _allow_files()

    async def main() -> None:
        async with system() as edge:
            config = uvicorn.Config(
                edge.app,
                http=cast(Any, Connection),
                lifespan="off",
                ws="none",
                log_config=None,
                backlog=_BACKLOG,
                ssl_certfile=tls_cert,
                ssl_keyfile=tls_key,
            )
            # What start-up made lives as long as the process: keep it out of every later collection.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            await server(config, edge).serve()

    uvloop.run(main())
    log_end()
