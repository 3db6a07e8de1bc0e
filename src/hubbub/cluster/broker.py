"""RabbitMQ over aio-pika: connections, queues, and single messages. What an API process publishes travels over
cluster.confirming."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any, NamedTuple, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue

from hubbub.cluster.protocol import Delivery, encode

log = logging.getLogger("hubbub.queue")

URGENT = "urgent"  # the type of a message whose sender waits until the writer reaches it
LOST = (aiormq.exceptions.AMQPError, aio_pika.exceptions.MessageProcessError, OSError, TimeoutError, RuntimeError)

HEARTBEAT_S = 3
CONFIRM_S = 5.0
CONNECT_S = 5.0
_LIMITING = 4  # the first major version that drops a message after a number of deliveries by default
_ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}


def queue_name(shard: int) -> str:
    return f"hubbub.shard.{shard}"


async def connect(url: str, name: str) -> AbstractConnection:
    """Connect; ``name`` is shown in the broker's list of connections. Raises one of LOST."""
    async with asyncio.timeout(CONNECT_S):
        return await aio_pika.connect(url, heartbeat=HEARTBEAT_S, client_properties={"connection_name": name})


def version_of(connection: AbstractConnection) -> str:
    properties = cast(Any, connection).transport.connection.server_properties
    return str(properties.get("version", "0"))


async def declare(connection: AbstractConnection, channel: AbstractChannel, shard: int) -> AbstractQueue:
    """Declare the shard's queue: replicated, read by one consumer at a time, without a limit of deliveries.

    RabbitMQ 4 drops a message after 20 deliveries by default: a writer that restarts in a loop would lose it. A queue
    that an earlier version created has that limit; it is used as it is, with a warning.
    """
    if not _limits(connection):
        return await channel.declare_queue(queue_name(shard), durable=True, arguments=_ARGUMENTS)
    if not await _endless(connection, shard):
        log.warning("%s has a delivery limit: messages are lost that a writer can't take.", queue_name(shard))
    return await channel.declare_queue(queue_name(shard), passive=True)


def _limits(connection: AbstractConnection) -> bool:
    return int(version_of(connection).split(".")[0]) >= _LIMITING


async def _endless(connection: AbstractConnection, shard: int) -> bool:
    """Whether the shard's queue was created without a delivery limit. Creates it if it is missing."""
    channel = await connection.channel()
    try:
        await channel.declare_queue(queue_name(shard), durable=True, arguments=_ARGUMENTS | {"x-delivery-limit": -1})
    except aiormq.exceptions.ChannelPreconditionFailed:
        return False
    await channel.close()
    return True


async def publish(channel: AbstractChannel, queue: str, body: bytes, *, kind: str | None = None) -> None:
    """Publish a message. When this returns, it is on disk and the broker has confirmed it. Raises one of LOST."""
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, type=kind)
    await channel.default_exchange.publish(message, queue, mandatory=True, timeout=CONFIRM_S)


async def send_markers(url: str, shards: int, publisher: str) -> None:
    """Send every shard an empty delivery. Once the store has applied it, all that was queued before it is stored.

    Raises one of LOST.
    """
    connection = await connect(url, "hubbub shards")
    try:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        for shard in range(shards):
            await declare(connection, channel, shard)
            await publish(channel, queue_name(shard), encode(Delivery(publisher, 1, [], 0)), kind=URGENT)
    finally:
        await close(connection)


class Probed(NamedTuple):
    """The result of ``probe``: the broker's version, and the shards' queues that were created with a delivery limit."""

    version: str
    limited: list[str]


async def probe(url: str) -> Probed:
    """Send a message through a temporary queue, delete that queue, and check the shards' queues.

    Raises one of LOST.
    """
    connection = await connect(url, "hubbub doctor")
    try:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        name = f"hubbub.doctor.{secrets.token_hex(4)}"
        queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        await publish(channel, name, b"")
        await queue.delete(if_unused=False, if_empty=False)
        return Probed(version_of(connection), await _limited(connection))
    finally:
        await close(connection)


async def _limited(connection: AbstractConnection) -> list[str]:
    limited: list[str] = []
    shard = 0
    while _limits(connection) and await _exists(connection, shard):
        if not await _endless(connection, shard):
            limited.append(queue_name(shard))
        shard += 1
    return limited


async def _exists(connection: AbstractConnection, shard: int) -> bool:
    channel = await connection.channel()
    try:
        await channel.declare_queue(queue_name(shard), passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


async def close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(2):
            await connection.close()
    except LOST as error:
        log.debug("A connection that was lost could not be closed in order: %r", error)
