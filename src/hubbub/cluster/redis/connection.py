"""One connection to one Redis: all commands of one turn of the event loop are sent in one write.

redis-py spends over 100 µs of CPU on a command, and a message takes three commands. So the path of a message uses this
client instead: hiredis packs and parses, and the rest is a queue of futures.

This module implements rule 8: whatever Redis answers, a caller gets a reply or Unavailable. The client reconnects by
itself, with growing pauses. While the connection is down, ``call`` refuses at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import hiredis

from hubbub.chat.errors import Unavailable
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.tasks import keep

log = logging.getLogger("hubbub.redis")

_MOST_PENDING = 50_000
_STALLED_S = 2.0
_CONNECT_S = 3.0
_LOOK_S = 0.5  # how often the server is asked for its identity, its memory use, and whether it accepts writes
_FULL = 0.9  # of maxmemory: above it numbers are refused, so that the scripts that free memory still work
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)


# A command that waits for its reply: the future, and a script's name and words, to load a script that the server lost.
_Words: TypeAlias = tuple[str | bytes | int, ...]
_Pending: TypeAlias = tuple[asyncio.Future[Any], str, _Words]


class OtherData(Unavailable):
    """The server's data set was replaced."""

    def __init__(self) -> None:
        super().__init__("Redis holds other data now. Try again a little later.")


class RedisClient(asyncio.Protocol):
    """A client of one Redis server, which reconnects when its connection is lost.

    ``identity`` names the server and its data set: it is different for another server, and for the same server with
    other data; empty while there is no connection. ``data_set`` is the server's own name for its data. ``keys`` are the
    names in the generation of that data set; None until the generation is known. ``connection`` counts the connections.

    Invariant: ``_pending`` has one entry for each command that was written and not answered, in the order written.
    """

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, str],
        *,
        pushed: Callable[[bytes, bytes], None] | None = None,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        """``pushed`` is called with the channel and the text of each message published to a channel that this
        connection has subscribed to; ``connected`` is called each time a connection is established.
        """
        self._pushed = pushed
        self._connected = connected
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "rediss" else None
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
        self._pending: deque[_Pending] = deque()
        self._out: list[bytes] = []
        self._answered_at = 0.0
        self._closed = False
        self._ready = False
        self._lost = asyncio.Event()
        self._run_id = ""
        self._refused = ""
        self._full = False
        self.identity = ""
        self.data_set = b""
        self.keys: Keys | None = None
        self.connection = 0
        self._connecting = keep(self._keep_connected(), "the connection to Redis")

    @property
    def fault(self) -> str | None:
        if not self._ready:
            return "Redis can't be reached."
        if self._refused:
            return self._refused
        if self._full:
            return f"Redis is over {_FULL:.0%} full: posts are refused."
        return None if self.keys is not None else "The generation of Redis is not known yet."

    @property
    def takes_numbers(self) -> bool:
        """Whether Redis has room for the keys of a new message."""
        return not self._full

    def call(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply.

        Raises:
            Unavailable: at once when there is no connection or too many commands wait; later, through the future, when
                the connection is lost or Redis answers with an error.
        """
        if not self._ready:
            raise Unavailable("Redis can't be reached. Try again a little later.")
        return self._send(words)

    def script(self, name: str, keys: int, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Run a script; ``words`` are its keys, as many as ``keys`` says, and then its arguments. Otherwise like
        ``call``."""
        if not self._ready:
            raise Unavailable("Redis can't be reached. Try again a little later.")
        return self._send(("EVALSHA", self._shas[name], keys, *words), name)

    async def vouched(self, name: str, keys: int, *words: str | bytes | int) -> Any:
        """Like ``script``, for one of redis.keys.VOUCHED. Also raises Unavailable if the server that answered holds
        another data set than the one that the names belong to (rule 3)."""
        data_set = self.data_set
        answered_from, reply = await self.script(name, keys, *words)
        if answered_from != data_set:
            raise OtherData
        return reply

    def named(self) -> Keys:
        """The names in the current generation. Raises Unavailable while the generation is not known."""
        if self.keys is None:
            raise Unavailable("The generation of Redis is not known yet. Try again a little later.")
        return self.keys

    def _send(self, words: _Words, script: str = "") -> asyncio.Future[Any]:
        if len(self._pending) >= _MOST_PENDING:
            raise Unavailable("Redis is too busy. Try again a little later.")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._write(words, (future, script, words))
        return future

    def _write(self, words: _Words, pending: _Pending) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        if not self._pending:
            self._answered_at = self._loop.time()
        self._out.append(hiredis.pack_command(words))  # type: ignore[arg-type]
        self._pending.append(pending)

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
            self._answered(self._pending.popleft(), reply)

    def _answered(self, pending: _Pending, reply: Any) -> None:
        future, script, words = pending
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if script and text.startswith("NOSCRIPT"):  # the scripts were flushed: load this one again
                self._write(("EVAL", self._scripts[script], *words[2:]), (future, "", ()))
                return
            if not future.done():
                future.set_exception(
                    Unavailable(f"Redis refuses: {text.split(':')[0][:80]}. Try again a little later.")
                )
        elif not future.done():
            future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ready = False
        self.identity = ""
        self.data_set = b""
        self.keys = None
        self._transport = None
        self._out.clear()
        pending, self._pending = self._pending, deque()
        for future, _, _ in pending:
            if not future.done():
                future.set_exception(Unavailable("The connection to Redis was lost. Try again a little later."))
        self._lost.set()

    # Connecting --------------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        failures = 0
        while not self._closed:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await self._connect()
            except (OSError, TimeoutError, Unavailable) as error:
                if failures == 0:
                    log.error("Redis at %s:%d can't be used: %s", self._host, self._port, error or type(error).__name__)
                self._abort()
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1
                continue
            if failures:
                log.warning("Redis at %s:%d answers again.", self._host, self._port)
            failures = 0
            await self._watch()
            if not self._closed:
                log.error("The connection to Redis at %s:%d was lost.", self._host, self._port)

    async def _connect(self) -> None:
        self._lost.clear()
        await self._loop.create_connection(lambda: self, self._host, self._port, ssl=self._tls)
        if self._password:
            await self._send(("AUTH", *([self._user] if self._user else []), self._password))
        if self._database != "0":
            await self._send(("SELECT", self._database))
        self._run_id = _field(await self._send(("INFO", "server")), "run_id")
        for text in self._scripts.values():
            await self._send(("SCRIPT", "LOAD", text))
        await self._look()
        self.connection += 1
        self._ready = True
        self._connected()

    async def _watch(self) -> None:
        """Until the connection is lost, check that the server answers, and update what is known about it."""
        while not self._lost.is_set():
            begun = self._loop.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._lost.wait()
            if self._loop.time() - begun > 2 * _LOOK_S:
                # This process was frozen, or had no CPU: read the replies that have arrived before judging Redis.
                self._answered_at = self._loop.time()
            elif self._pending and self._loop.time() - self._answered_at > _STALLED_S:
                log.error("Redis at %s:%d has not answered for %.0f s.", self._host, self._port, _STALLED_S)
                self._abort()
                continue
            if self._ready and self._pushed is None:
                with suppress(Unavailable, TimeoutError):
                    async with asyncio.timeout(_STALLED_S):
                        await self._look()

    async def _look(self) -> None:
        if self._pushed is not None:  # a connection that has subscribed can't ask
            return
        replication = await self._send(("INFO", "replication"))
        memory = await self._send(("INFO", "memory"))
        most = _figure(memory, "maxmemory")
        full = most > 0 and _figure(memory, "used_memory") > _FULL * most
        refused = ""
        try:
            await self._send(("SET", "hubbub:probe", 1, "PX", 60_000))
        except Unavailable as error:
            refused = error.sentence
        for was, now, what in ((self._refused, refused, "takes no writes"), (self._full, full, "is nearly full")):
            if bool(was) != bool(now):
                log.error("Redis at %s:%d %s%s.", self._host, self._port, what, "" if now else " no more")
        self._refused, self._full = refused, full
        data_set = _field(replication, "master_replid")
        identity = f"{self._run_id}:{data_set}"
        if identity != self.identity:  # other data, which has another generation: the names in use are not valid for it
            self.keys = None
        self.identity, self.data_set = identity, data_set.encode()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def connected(self, within_s: float) -> bool:
        """Wait until there is a connection, at most ``within_s`` seconds. Returns whether there is one."""
        until = self._loop.time() + within_s
        while not self._ready and self._loop.time() < until:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        return self._ready

    @property
    def ready(self) -> bool:
        return self._ready

    async def close(self) -> None:
        self._closed = True
        self._abort()
        self._connecting.cancel()
        await asyncio.gather(self._connecting, return_exceptions=True)


def _field(information: bytes, name: str) -> str:
    """The value of one field of INFO's reply. Raises Unavailable when it is not there."""
    start = f"{name}:"
    for line in information.decode(errors="replace").splitlines():
        if line.startswith(start):
            return line[len(start) :]
    raise Unavailable(f"Redis does not say its {name}.")


def _figure(information: bytes, name: str) -> int:
    """Like ``_field``, for a number."""
    field = _field(information, name)
    if not field.isdecimal():
        raise Unavailable(f"Redis says that its {name} is {field[:20]}.")
    return int(field)
