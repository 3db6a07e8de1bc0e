"""One connection to Redis for one process: every command of a turn of the event loop travels in one write.

redis-py spends over 100 µs of CPU on a command; a message takes three, so the path of a message has this instead:
hiredis packs and parses, and what is left is a queue of futures.

The connection is opened again by itself, with growing pauses. While it is down, ``call`` refuses at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from hubbub.chat.errors import Unavailable

log = logging.getLogger("hubbub.redis")

_MOST_PENDING = 50_000
_STALLED_S = 2.0
_CONNECT_S = 3.0
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class ScriptFailed(Exception):
    """Redis answered a command with an error."""


class RedisWire(asyncio.Protocol):
    """``run`` is the server process's own id: another process, whatever data it has loaded, has another.

    Invariant: ``_pending`` has one future for each command written and not answered, in the order written.
    """

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, str],
        *,
        pushed: Callable[[bytes, bytes], None] | None = None,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        """``pushed`` gets the channel and the text of what is published where this connection has subscribed;
        ``connected`` is told each time that there is a connection.
        """
        self._pushed = pushed
        self._connected = connected
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 6379
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._database = parts.path.strip("/") or "0"
        self._scripts = dict(scripts)
        self._shas = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in scripts.items()}  # noqa: S324
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._answered_at = 0.0
        self._closed = False
        self._ready = False
        self._lost = asyncio.Event()
        self._connecting = self._loop.create_task(self._keep_connected())
        self.run = ""

    @property
    def fault(self) -> str | None:
        return None if self._ready else "Redis can't be reached."

    def call(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command; the future has its reply.

        Raises:
            Unavailable: at once when there is no connection, or later, in the future, when it is lost.
        """
        if not self._ready:
            raise Unavailable("Redis can't be reached. Try again a little later.")
        return self._send(words)

    def script(self, name: str, keys: int, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Run a script; ``words`` are its keys, as many as ``keys`` says, and its arguments."""
        return self.call("EVALSHA", self._shas[name], keys, *words)

    def _send(self, words: tuple[str | bytes | int, ...]) -> asyncio.Future[Any]:
        if len(self._pending) >= _MOST_PENDING:
            raise Unavailable("Redis is too busy. Try again a little later.")
        if not self._out:
            self._loop.call_soon(self._flush)
        if not self._pending:
            self._answered_at = self._loop.time()
        self._out.append(hiredis.pack_command(words))  # type: ignore[arg-type]
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(future)
        return future

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(b"".join(out))

    # asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reader = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        self._answered_at = self._loop.time()
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if self._pushed is not None and type(reply) is list and reply[0] == b"message":
                self._pushed(reply[1], reply[2])
                continue
            future = self._pending.popleft()
            if future.done():  # whoever asked has gone
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(ScriptFailed(str(reply)))
            else:
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ready = False
        self._transport = None
        self._out.clear()
        pending, self._pending = self._pending, deque()
        for future in pending:
            if not future.done():
                future.set_exception(Unavailable("The connection to Redis was lost. Try again a little later."))
        self._lost.set()

    # Connecting --------------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        failures = 0
        while not self._closed:
            try:
                await asyncio.wait_for(self._connect(), _CONNECT_S)
            except (OSError, TimeoutError, Unavailable, ScriptFailed) as error:
                if failures == 0:
                    log.error("Redis at %s:%d can't be used: %s", self._host, self._port, error or type(error).__name__)
                self._abort()
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1
                continue
            if failures:
                log.warning("Redis at %s:%d answers again.", self._host, self._port)
            failures = 0
            while not self._lost.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), 0.5)
                if self._pending and self._loop.time() - self._answered_at > _STALLED_S:
                    log.error("Redis at %s:%d has not answered for %.0f s.", self._host, self._port, _STALLED_S)
                    self._abort()
            if not self._closed:
                log.error("The connection to Redis at %s:%d was lost.", self._host, self._port)

    async def _connect(self) -> None:
        self._lost.clear()
        await self._loop.create_connection(lambda: self, self._host, self._port)
        if self._password:
            await self._send(("AUTH", *([self._user] if self._user else []), self._password))
        if self._database != "0":
            await self._send(("SELECT", self._database))
        information = await self._send(("INFO", "server"))
        lines = bytes(information).decode().splitlines()
        self.run = next(line.partition(":")[2] for line in lines if line.startswith("run_id:"))[:12]
        for text in self._scripts.values():
            await self._send(("SCRIPT", "LOAD", text))
        self._ready = True
        self._connected()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def connected(self, within_s: float) -> bool:
        """Wait until there is a connection, for so many seconds at most."""
        until = self._loop.time() + within_s
        while not self._ready and self._loop.time() < until:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        return self._ready

    async def close(self) -> None:
        self._closed = True
        self._abort()
        self._connecting.cancel()
        await asyncio.gather(self._connecting, return_exceptions=True)
