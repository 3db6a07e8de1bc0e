"""One connection to RabbitMQ that publishes and waits for confirms: all messages of one turn of the event loop leave in
one write.

It has one channel in confirm mode, and does nothing else: queues are declared and read over aio-pika (cluster.broker).
docs/decisions/0009-publishing.md says why no message is confirmed that the broker does not have.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from typing import cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from hubbub.cluster import amqp_frames as amqp
from hubbub.cluster.amqp_frames import Frame, Frames, Malformed

log = logging.getLogger("hubbub.queue")

_CHANNEL = 1
_FRAME = 128 * 1024  # bytes, unless the broker wants smaller ones
_UNWRITTEN = 16 * 1024 * 1024  # bytes that the broker has not taken yet: with more, ``takes`` is False
_SILENT = 2  # heartbeats
_CLOSE_S = 1.0
_PORTS = {"amqp": 5672, "amqps": 5671}


class Confirming(asyncio.Protocol):
    """Made by ``connect``. ``lost`` is set when the connection is gone, and ``why`` says why; it is never used again.
    ``blocked`` is why the broker takes no messages now, and empty while it does.

    Invariants: ``_tag`` counts the messages that were published here, as the broker does; ``_waiting`` has those of
    them whose outcome is not known, by their tag, in the order in which they were published. What is in ``_returned``
    was sent back, and its confirm says only that nothing more comes of it.
    """

    def __init__(self, heartbeat_s: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._frames = Frames(_FRAME)
        self._heartbeat_s = heartbeat_s
        self._tag = 0
        self._waiting: dict[int, asyncio.Future[str | None]] = {}
        self._returned: dict[int, str] = {}
        self._returning = ""
        self._to: dict[str, bytes] = {}  # the first frame of a message to a queue
        self._out: list[bytes] = []
        self._full = False
        self._answer: tuple[int, asyncio.Future[bytes]] | None = None
        self._heard_at = self._beat_at = 0.0
        self._spoke = False
        self._beating: asyncio.TimerHandle | None = None
        self.why = ""
        self.blocked = ""
        self.lost = asyncio.Event()

    @property
    def takes(self) -> bool:
        """Whether the broker takes messages now."""
        return not (self.blocked or self._full or self.lost.is_set())

    def publish(self, queue: str, body: bytes, kind: str | None = None) -> asyncio.Future[str | None]:
        """Publish a persistent message to the queue. The future gets None when the broker has it on disk; otherwise
        why that is not known, or not so."""
        future: asyncio.Future[str | None] = self._loop.create_future()
        if self.lost.is_set():
            future.set_result(self.why)
            return future
        self._tag += 1
        self._waiting[self._tag] = future
        first = self._to.get(queue)
        if first is None:
            first = self._to[queue] = amqp.publish_to(_CHANNEL, queue)
        self._write(first, *amqp.content(_CHANNEL, self._tag, kind, body, self._frames.most))
        return future

    def give_up(self, future: asyncio.Future[str | None], why: str) -> None:
        """Wait no longer for the outcome of a message: its future gets ``why``, and a confirm that comes later says
        nothing."""
        for tag, waiting in self._waiting.items():
            if waiting is future:
                self._settle(tag, why)
                return

    def _write(self, *frames: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += frames

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self.lost.is_set():
            self._spoke = True
            self._transport.write(b"".join(out))

    # asyncio ---------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_UNWRITTEN)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for frame in self._frames.feed(data):
                self._received(frame)
        except (ValueError, IndexError, struct.error) as error:
            self._end(f"RabbitMQ sent what is not understood: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._beating is not None:
            self._beating.cancel()
        self._over("The connection was lost." if exc is None else f"The connection was lost: {exc!r}")

    def _over(self, why: str) -> None:
        """Nothing that comes counts any more, and the outcome of everything that waits is not known."""
        if self.lost.is_set():
            return
        self.why = why
        self.lost.set()
        self._out.clear()
        while self._waiting:
            self._settle(next(iter(self._waiting)), why)
        if self._answer is not None and not self._answer[1].done():
            self._answer[1].set_exception(ConnectionError(why))

    def _end(self, why: str) -> None:
        """Give the connection up."""
        self._over(why)
        self._transport.abort()

    # What the broker says --------------------------------------------------------------------------------------------

    def _received(self, frame: Frame) -> None:
        kind, channel, payload = frame
        if kind == amqp.METHOD:
            number = amqp.method_of(payload)
            if number == amqp.ACK:
                self._confirmed(*amqp.confirm_of(payload), None)
            elif number == amqp.NACK:
                self._confirmed(*amqp.confirm_of(payload), "RabbitMQ could not take it.")
            elif number == amqp.RETURN:
                self._returning = f"RabbitMQ returned it: {amqp.closed_of(payload)}"
            else:
                self._said(number, channel, payload)
        elif kind == amqp.HEADER:  # of the only content that comes: what is returned
            tag = amqp.tag_of(payload)
            if tag in self._waiting:
                self._returned[tag] = self._returning
        elif kind not in (amqp.BODY, amqp.HEARTBEAT_FRAME):
            raise Malformed(f"a frame of kind {kind}")

    def _confirmed(self, tag: int, up_to: bool, refused: str | None) -> None:
        if tag > self._tag:
            raise Malformed(f"a confirm of message {tag} of {self._tag}")
        if not up_to:
            self._settle(tag, refused)
            return
        while self._waiting:
            first = next(iter(self._waiting))
            if first > tag:
                break
            self._settle(first, refused)

    def _settle(self, tag: int, outcome: str | None) -> None:
        """Tell the outcome of a message, if it was not told before."""
        future = self._waiting.pop(tag, None)
        returned = self._returned.pop(tag, None) if self._returned else None
        if future is not None and not future.done():
            future.set_result(outcome if returned is None else returned)

    def _said(self, number: int, channel: int, payload: bytes) -> None:
        if self._answer is not None and number == self._answer[0]:
            (_, answer), self._answer = self._answer, None
            if not answer.done():
                answer.set_result(payload)
        elif number == amqp.BLOCKED:
            self.blocked = amqp.reason_of(payload) or "blocked"
            log.error("RabbitMQ takes no messages: %s", self.blocked)
        elif number == amqp.UNBLOCKED:
            self.blocked = ""
            log.warning("RabbitMQ takes messages again.")
        elif number in (amqp.CLOSE, amqp.CHANNEL_CLOSE):
            self._over(f"RabbitMQ closed the {'channel' if channel else 'connection'}: {amqp.closed_of(payload)}")
            self._transport.write(amqp.method(channel, amqp.CHANNEL_CLOSE_OK if channel else amqp.CLOSE_OK))
            self._transport.close()
        else:
            raise Malformed(f"method {number:#x}")

    # Heartbeats ------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Twice in a heartbeat: say that this end is there, unless it spoke anyway, and look whether the other is."""
        now = self._loop.time()
        if now - self._beat_at > self._heartbeat_s:
            self._heard_at = now  # this process was frozen, or had no CPU: what has arrived is read first
        if now - self._heard_at > _SILENT * self._heartbeat_s:
            self._end(f"RabbitMQ was silent for {_SILENT * self._heartbeat_s} s.")
            return
        if not self._spoke:
            self._write(amqp.HEARTBEAT)
        self._spoke = False
        self._beat_at = now
        self._beating = self._loop.call_later(self._heartbeat_s / 2, self._beat)

    # Connecting and closing ------------------------------------------------------------------------------------------

    async def _ask(self, number: int, *frames: bytes) -> bytes:
        """Send the frames; the arguments of the method that answers. Raises ConnectionError."""
        if self.lost.is_set():
            raise ConnectionError(self.why)
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answer = number, answer
        self._write(*frames)
        return await answer

    async def open(self, url: SplitResult, name: str) -> None:
        start = await self._ask(amqp.START, amqp.PROTOCOL)
        if b"PLAIN" not in amqp.mechanisms_of(start):
            raise ConnectionError("RabbitMQ takes no passwords.")
        properties: dict[str, str | bool | dict[str, bool]] = {
            "product": "Hubbub",
            "connection_name": name,
            "capabilities": {
                "publisher_confirms": True,
                "basic.nack": True,
                "connection.blocked": True,
                "authentication_failure_close": True,
            },
        }
        user, password = unquote(url.username or "guest"), unquote(url.password or "guest")
        offered = amqp.tune_of(await self._ask(amqp.TUNE, amqp.start_ok(user, password, properties)))
        self._frames.most = min(offered.frame or _FRAME, _FRAME)
        self._heartbeat_s = min(offered.heartbeat or self._heartbeat_s, self._heartbeat_s)
        host = amqp.short(unquote(url.path[1:]) or "/")
        await self._ask(
            amqp.OPEN_OK,
            amqp.tune_ok(amqp.Tune(_CHANNEL, self._frames.most, self._heartbeat_s)),
            amqp.method(0, amqp.OPEN, host + amqp.short("") + b"\x00"),
        )
        await self._ask(amqp.CHANNEL_OPEN_OK, amqp.method(_CHANNEL, amqp.CHANNEL_OPEN, amqp.short("")))
        await self._ask(amqp.SELECT_OK, amqp.method(_CHANNEL, amqp.SELECT, b"\x00"))
        self._beat_at = self._loop.time()
        self._beat()

    async def close(self) -> None:
        """Close in order, as far as the broker takes part. The outcome of what still waits is not known."""
        if not self.lost.is_set():
            try:
                goodbye = amqp.method(0, amqp.CLOSE, b"\x00\xc8" + amqp.short("") + b"\x00\x00\x00\x00")
                async with asyncio.timeout(_CLOSE_S):
                    await self._ask(amqp.CLOSE_OK, goodbye)
            except (OSError, TimeoutError) as error:
                log.debug("A connection could not be closed in order: %r", error)
        self._end("The connection was closed.")


async def connect(url: str, name: str, *, heartbeat_s: int, within_s: float) -> Confirming:
    """Connect; ``name`` is shown in the broker's list of connections. Raises OSError or TimeoutError."""
    parts = urlsplit(url)
    connection = Confirming(heartbeat_s)
    async with asyncio.timeout(within_s):
        await asyncio.get_running_loop().create_connection(
            lambda: connection, parts.hostname or "127.0.0.1", parts.port or _PORTS[parts.scheme], ssl=_tls(parts)
        )
        try:
            await connection.open(parts, name)
        except BaseException as error:
            await connection.close()
            if isinstance(error, ValueError | struct.error):
                raise ConnectionError(f"RabbitMQ and the URL do not go together: {error}") from error
            raise
    return connection


def _tls(url: SplitResult) -> ssl.SSLContext | None:
    """As aio-pika reads the options of the same URL."""
    if url.scheme != "amqps":
        return None
    given = {option: values[-1] for option, values in parse_qs(url.query).items()}
    context = ssl.create_default_context(
        cafile=given.get("cafile"), capath=given.get("capath"), cadata=given.get("cadata")
    )
    if "certfile" in given:
        context.load_cert_chain(given["certfile"], given.get("keyfile"))
    if given.get("no_verify_ssl", "0") != "0":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
