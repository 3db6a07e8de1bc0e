"""A part of ``hubbub serve`` that runs as a process of its own: it has its own interpreter, so its work and the event
loop's don't wait for each other.

It is forked from the process that serves, or the first of those, and ends with it: the system kills it when that
process dies, and it ends when its socket is closed. It holds the lock of the data folder too. So a folder is not served
again before all processes that had it are gone. It ignores the signals that stop a service, which may be sent to all
processes: the process that forked it tells it when to end.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import msgspec

from hubbub.embedded.frames import Frames, Logged, frame

log = logging.getLogger("hubbub")

_DIES_WITH_PARENT, _NAME = 1, 15  # of prctl(2)


class Sockets:
    """The sockets that are made before the processes are forked. Each has all of them at first, and must close those of
    the others: an end is closed for the other end only when every process has closed it.
    """

    def __init__(self) -> None:
        self._all: list[socket.socket] = []

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        self.add(ours, theirs)
        return ours, theirs

    def pairs(self, count: int) -> tuple[list[socket.socket], list[socket.socket]]:
        """So many; each list has one end of all."""
        pairs = [self.pair() for _ in range(count)]
        return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]

    def add(self, *sockets: socket.socket) -> None:
        self._all += sockets

    def keep(self, *mine: socket.socket) -> None:
        """Close all others."""
        for each in self._all:
            if each not in mine:
                each.close()


class Child:
    """A process that was forked, and our end of its socket."""

    def __init__(self, name: str, pid: int, channel: socket.socket) -> None:
        self.name = name
        self.pid = pid
        self.channel = channel

    @classmethod
    def start(
        cls,
        name: str,
        run: Callable[[socket.socket], None],
        sockets: Sockets,
        its: Sequence[socket.socket] = (),
        *,
        own_log: bool = False,
    ) -> Child:
        """Fork a process that calls ``run`` with its end of a socket after ``begin``, and ends when that returns. Of
        the ``sockets`` it has that one and ``its``. It sends its log over that socket, unless it writes it itself
        (``own_log``). No connection to a database may be open: SQLite's can't be used in two processes.
        """
        parent = os.getpid()
        ours, theirs = sockets.pair()
        pid = os.fork()
        if pid == 0:
            sockets.keep(theirs, *its)
            _live(name, run, theirs, parent, own_log=own_log)
        return cls(name, pid, ours)

    def begin(self) -> None:
        """Let it begin, now that the database is ready for it. If it has ended, this process ends too."""
        try:
            self.channel.send(b"!")
        except BrokenPipeError:
            end_with(self.name)

    def end(self) -> None:
        """Tell it to end, by closing our side of the socket. It may have ended."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    async def ended(self) -> None:
        """Wait until the process has ended."""
        with suppress(ChildProcessError):  # raised at its end if who started us ignores SIGCHLD, which we inherit
            await asyncio.to_thread(os.waitpid, self.pid, 0)


def _live(
    name: str, run: Callable[[socket.socket], None], channel: socket.socket, parent: int, *, own_log: bool
) -> NoReturn:
    """The life of the forked process."""
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the first process tells it when to end
        signal.set_wakeup_fd(-1)
        libc = ctypes.CDLL(None)
        libc.prctl(_DIES_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_NAME, f"hubbub-{name}".encode(), 0, 0, 0)
        if os.getppid() == parent:  # it may have died before the line above
            gc.collect()
            gc.freeze()  # what was there before stays shared with the parent
            if not own_log:
                _log_to(channel)
            if channel.recv(1):
                run(channel)
            status = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone, and its lock with this process
    except BaseException:
        log.critical("The process %s failed and ends.", name, exc_info=True)
    finally:
        os._exit(status)


class _Forward(logging.Handler):
    """Sends each record to the first process, which has the log."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logged = Logged(_pickled(record))
        except Exception:  # noqa: BLE001 - a wrong record must not end what logs it
            self.handleError(record)
        else:
            self._sender.send(logged)


def _pickled(record: logging.LogRecord) -> bytes:
    record.msg, record.args = record.getMessage(), None
    if record.exc_info:
        record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
    for name, value in vars(record).items():
        if not isinstance(value, str | int | float | None):  # it may be something that can't be pickled
            setattr(record, name, str(value))
    return pickle.dumps(record)


class Sender:
    """Sends messages to the first process, from any thread. Blocks while that takes none."""

    _turn = threading.Lock()  # of all senders in the process: they have the same socket

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def send(self, message: msgspec.Struct) -> None:
        data = frame(msgspec.msgpack.encode(message))
        with self._turn:
            self._channel.sendall(data)


def _log_to(channel: socket.socket) -> None:
    root = logging.getLogger()
    root.handlers = [_Forward(Sender(channel))]
    logging.getLogger("hubbub").handlers = []


class Channel(asyncio.Protocol):
    """Our end of the socket of the child ``name``, on the event loop. ``take`` gets each frame. If the child ends
    before ``close``, this process ends too, see ``end_with``."""

    def __init__(self, name: str, take: Callable[[bytes], None]) -> None:
        self._name = name
        self._take = take
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._ended = self._loop.create_future()

    async def connect(self, channel: socket.socket) -> None:
        await self._loop.create_unix_connection(lambda: self, sock=channel)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for content in self._frames.take(data):
            self._take(content)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._closing:
            end_with(self._name)
        self._ended.set_result(None)

    def send(self, content: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame(content))

    async def close(self) -> None:
        """Send no more, and wait until the child has finished what it has and has closed its end."""
        if not self._closing:
            self._closing = True
            if self._transport is not None:
                self._transport.write_eof()
        await self._ended


def write_log(logged: Logged) -> None:
    record: logging.LogRecord = pickle.loads(logged.record)  # noqa: S301 - of a process of our own
    logging.getLogger(record.name).handle(record)


def end_with(name: str) -> NoReturn:
    """End this process because the child has ended. Requests that need it would wait for ever, and it may not be known
    which of their commands are stored. Nothing that was acknowledged is lost, and a supervisor restarts the service."""
    log.critical("The process %s has ended; the service ends.", name)
    logging.shutdown()
    os._exit(1)
