"""The commands that could not be stored: look at them, send them again, or drop them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from hubbub.chat.commands import Delivery, MessageCommand, PostMessage
from hubbub.queues.rabbitmq import close, connect, declare, declare_dead, decode, encode, publish, queue_name, shard_of


class DeadCommand(NamedTuple):
    """``number`` is its place in the queue, from 1; ``command`` is None when it can't be read."""

    number: int
    at: str
    reason: str
    command: MessageCommand | None
    size: int


class DeadLetters:
    """The dead-letter queue, seen from its head. What is looked at stays, in its place."""

    def __init__(self, channel: AbstractChannel, shards: int) -> None:
        self._channel = channel
        self._shards = shards

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, shards: int) -> AsyncIterator[DeadLetters]:
        """Raises one of rabbitmq.LOST."""
        connection = await connect(url, "hubbub dead")
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await declare_dead(channel)
            yield cls(channel, shards)
        finally:
            await close(connection)

    async def _held(self) -> list[AbstractIncomingMessage]:
        """All that are there; whatever is not acknowledged goes back to its place when the channel closes."""
        queue = await declare_dead(self._channel)
        held = []
        while (message := await queue.get(no_ack=False, fail=False)) is not None:
            held.append(message)
        return held

    async def list(self) -> list[DeadCommand]:
        return [_read(number, message) for number, message in enumerate(await self._held(), 1)]

    async def retry(self, chosen: Callable[[int], bool]) -> int:
        """Send the chosen ones through their shard again. Returns how many there were."""
        done = 0
        for number, message in enumerate(await self._held(), 1):
            command = _read(number, message).command
            if not chosen(number) or command is None:
                continue
            if isinstance(command, PostMessage):
                command = msgspec.structs.replace(command, epoch=0)  # its number was kept for it, whatever came since
            shard = shard_of(command.chat.token, self._shards)
            await declare(self._channel, shard)
            delivery = Delivery(f"retry.{secrets.token_hex(12)}", 1, [command])
            await publish(self._channel, queue_name(shard), encode(delivery))
            await message.ack()
            done += 1
        return done

    async def drop(self, chosen: Callable[[int], bool]) -> int:
        """Delete the chosen ones for good. Returns how many there were."""
        done = 0
        for number, message in enumerate(await self._held(), 1):
            if chosen(number):
                await message.ack()
                done += 1
        return done


def _read(number: int, message: AbstractIncomingMessage) -> DeadCommand:
    headers = message.headers
    command: MessageCommand | None
    try:
        (command,) = decode(message.body).commands
    except (msgspec.MsgspecError, ValueError):
        command = None
    return DeadCommand(number, str(headers.get("at", "")), str(headers.get("reason", "")), command, len(message.body))
