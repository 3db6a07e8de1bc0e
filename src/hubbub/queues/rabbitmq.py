"""The queue of the cluster mode: RabbitMQ, quorum queues, publisher confirms, one queue per shard of tokens.

Group publishing: a shard has one message of ours on its way to the broker at a time, and the commands that arrive
meanwhile travel together in the next, so the broker's work is shared by more commands the busier the service is.

What is sent is a Delivery in MessagePack. A publisher's sequence rises by one with each
message to a shard, and nothing is ever sent twice by a publisher: the store knows a redelivery by it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from zlib import crc32

import aio_pika
import aiormq
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue, HeadersType

from hubbub.chat.commands import Command, Delivery, MessageCommand, OpenChat, PostMessage
from hubbub.chat.errors import Unavailable
from hubbub.chat.ticket import Ticket

log = logging.getLogger("hubbub.queue")

DEAD = "hubbub.dead"
URGENT = "urgent"  # the type of a message that somebody waits for the writer to reach
LOST = (aiormq.exceptions.AMQPError, aio_pika.exceptions.MessageProcessError, OSError, TimeoutError, RuntimeError)

_OVERHEAD = 500  # bytes a command costs beside its body
_MOST_TOGETHER = 500  # commands in one AMQP message
# A message costs this process and the broker as much as some twenty commands in it: where a few travel together, let
# more gather. Where many do, or one alone, waiting gains nothing.
_LINGER_S = 0.002
_LINGER_FOR = range(2, 50)
_STALLED_S = 1.0
_CONFIRM_S = 5.0
_CONNECT_S = 5.0
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class Parked(NamedTuple):
    ticket: Ticket
    size: int


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Delivery).decode


def shard_of(token: str, shards: int) -> int:
    return crc32(token.encode()) % shards


def queue_name(shard: int) -> str:
    return f"hubbub.shard.{shard}"


async def connect(url: str, name: str) -> AbstractConnection:
    """A connection under this name in the broker's list. Raises one of LOST."""
    return await asyncio.wait_for(
        aio_pika.connect(url, heartbeat=10, client_properties={"connection_name": name}), _CONNECT_S
    )


async def declare(channel: AbstractChannel, shard: int) -> AbstractQueue:
    return await channel.declare_queue(
        queue_name(shard), durable=True, arguments={"x-queue-type": "quorum", "x-single-active-consumer": True}
    )


async def declare_dead(channel: AbstractChannel) -> AbstractQueue:
    return await channel.declare_queue(DEAD, durable=True, arguments={"x-queue-type": "quorum"})


async def publish(
    channel: AbstractChannel, queue: str, body: bytes, *, kind: str | None = None, headers: HeadersType | None = None
) -> None:
    """On disk, and confirmed by the broker, when this returns. Raises one of LOST."""
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, type=kind, headers=headers)
    await channel.default_exchange.publish(message, queue, mandatory=True, timeout=_CONFIRM_S)


async def send_markers(url: str, shards: int, publisher: str) -> None:
    """Send every shard an empty delivery: once the store has applied it, it has all that was queued before.

    Raises one of LOST.
    """
    connection = await connect(url, "hubbub shards")
    try:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        for shard in range(shards):
            await declare(channel, shard)
            await publish(channel, queue_name(shard), encode(Delivery(publisher, 1, [])), kind=URGENT)
    finally:
        await close(connection)


async def probe(url: str) -> str:
    """Send a message through a queue of its own, and take the queue away. Returns the broker's version.

    Raises one of LOST.
    """
    connection = await connect(url, "hubbub doctor")
    try:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        name = f"hubbub.doctor.{secrets.token_hex(4)}"
        queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        await publish(channel, name, b"")
        await queue.delete(if_unused=False, if_empty=False)
        properties = cast(Any, connection).transport.connection.server_properties
        return str(properties.get("version", "unknown"))
    finally:
        await close(connection)


class _Shard:
    """Invariant: ``since`` is when the message under way was sent; None when there is none."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.waiting: deque[Parked] = deque()
        self.sequence = 0
        self.since: float | None = None


class RabbitQueue:
    """See chat.ports.Queue; only message commands travel this way. A post's outcome is its own number."""

    def __init__(self, url: str, shards: int, *, max_commands: int = 20_000, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._url = url
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._publisher = secrets.token_hex(12)
        self._shards = [_Shard(queue_name(shard)) for shard in range(shards)]
        self._loop = asyncio.get_running_loop()
        self._channel: AbstractChannel | None = None
        self._connection: AbstractConnection | None = None
        self._commands = 0
        self._bytes = 0
        self.accepted = 0
        self._closed = False
        self._sending: set[asyncio.Task[None]] = set()
        self._lost = asyncio.Event()
        self._keeping = self._loop.create_task(self._keep_connected())

    @property
    def depth(self) -> int:
        return self._commands

    @property
    def fault(self) -> str | None:
        if self._channel is None:
            return "RabbitMQ can't be reached."
        if any(self._stalled(shard) for shard in self._shards):
            return "RabbitMQ does not confirm what it is sent."
        return None

    async def backlog(self) -> dict[str, int]:
        """How many wait in each shard's queue and among the dead letters; empty while RabbitMQ can't be asked."""
        if self._connection is None:
            return {}
        try:
            channel = await self._connection.channel()
            try:
                names = [*(shard.queue for shard in self._shards), DEAD]
                await declare_dead(channel)
                found = [await channel.declare_queue(name, passive=True) for name in names]
            finally:
                await channel.close()
        except LOST:
            return {}
        return {queue.name: queue.declaration_result.message_count or 0 for queue in found}

    def _stalled(self, shard: _Shard) -> bool:
        return shard.since is not None and self._loop.time() - shard.since > _STALLED_S

    async def connected(self, within_s: float) -> bool:
        """Wait until there is a connection, for so many seconds at most."""
        until = self._loop.time() + within_s
        while self._channel is None and self._loop.time() < until:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        return self._channel is not None

    def accept(self, command: Command) -> Ticket:
        if not isinstance(command, MessageCommand):
            raise TypeError(f"A {type(command).__name__} does not go through the queue.")
        shard = self._shards[shard_of(command.chat.token, len(self._shards))]
        size = _OVERHEAD + len(command.body) if isinstance(command, PostMessage) else _OVERHEAD
        if self._channel is None or self._closed or self._stalled(shard):
            raise Unavailable("The write queue can't be reached. Nothing was stored; send it again a little later.")
        if self._commands >= self._max_commands or self._bytes + size > self._max_bytes:
            raise Unavailable("The write queue is full. Nothing was stored; send it again a little later.")
        self._commands += 1
        self._bytes += size
        self.accepted += 1
        ticket = Ticket(command)
        shard.waiting.append(Parked(ticket, size))
        if shard.since is None:
            self._start(shard)
        return ticket

    def _start(self, shard: _Shard) -> None:
        shard.since = self._loop.time()
        task = self._loop.create_task(self._send(shard))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, shard: _Shard) -> None:
        """Send what has gathered until nothing waits."""
        batch: list[Parked] = []
        while shard.waiting:
            if len(batch) in _LINGER_FOR:
                await asyncio.sleep(_LINGER_S)
            batch = self._gather(shard)
            shard.sequence += 1
            shard.since = self._loop.time()
            commands = [parked.ticket.command for parked in batch]
            delivery = Delivery(self._publisher, shard.sequence, commands)  # type: ignore[arg-type]
            refusal: Unavailable | None = None
            timer = self._loop.call_later(_STALLED_S, self._refuse_waiting, shard)
            try:
                if self._channel is None:
                    raise ConnectionError("no connection")
                kind = URGENT if isinstance(commands[0], OpenChat) else None
                await publish(self._channel, shard.queue, encode(delivery), kind=kind)
            except LOST as error:
                log.error("RabbitMQ took %d commands and did not confirm them: %r", len(batch), error)
                refusal = Unavailable("The write queue did not confirm this in time; it may or may not be stored.")
            timer.cancel()
            self._tell(batch, refusal)
        shard.since = None

    def _refuse_waiting(self, shard: _Shard) -> None:
        """The broker does not confirm: what was not sent yet is refused, rather than kept waiting."""
        waiting, shard.waiting = list(shard.waiting), deque()
        self._tell(waiting, Unavailable("The write queue does not answer. Nothing was stored; send it again later."))

    @staticmethod
    def _gather(shard: _Shard) -> list[Parked]:
        """A marker goes alone: the writer must know what the store has exactly there."""
        batch = [shard.waiting.popleft()]
        if isinstance(batch[0].ticket.command, OpenChat):
            return batch
        while (
            shard.waiting and len(batch) < _MOST_TOGETHER and not isinstance(shard.waiting[0].ticket.command, OpenChat)
        ):
            batch.append(shard.waiting.popleft())
        return batch

    def _tell(self, batch: Sequence[Parked], refusal: Unavailable | None) -> None:
        self._commands -= len(batch)
        for ticket, size in batch:
            self._bytes -= size
            command = ticket.command
            try:
                ticket.resolve(refusal or (command.number if isinstance(command, PostMessage) else None))
            except Exception:
                log.exception("A listener failed; what is queued stands.")

    async def _keep_connected(self) -> None:
        failures = 0
        while not self._closed:
            connection: AbstractConnection | None = None
            try:
                self._lost.clear()
                connection = await connect(self._url, "hubbub api")
                connection.close_callbacks.add(lambda *_: self._lost.set())
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                channel.close_callbacks.add(lambda *_: self._lost.set())
                for shard in range(len(self._shards)):
                    await declare(channel, shard)
                self._channel, self._connection = channel, connection
                if failures:
                    log.warning("RabbitMQ answers again.")
                failures = 0
                await self._lost.wait()
                log.error("The connection to RabbitMQ was lost.")
            except LOST as error:
                if failures == 0:
                    log.error("RabbitMQ can't be used: %r", error)
                failures += 1
            finally:
                self._channel = self._connection = None
                if connection is not None:
                    await close(connection)
            if not self._closed:
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])

    async def close(self) -> None:
        """Refuse what comes from now on, and finish what was accepted."""
        self._closed = True
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)


async def close(connection: AbstractConnection) -> None:
    try:
        await asyncio.wait_for(connection.close(), 2)
    except LOST as error:
        log.debug("A connection that was lost could not be closed in order: %r", error)
