"""The writer's end of RabbitMQ: each shard read in order by one active consumer, others standing by.

The broker's single active consumer decides whose turn a shard is; when a writer dies, its shards go to the next in line
at once. A writer that has been active on more shards than its share gives one up, so that a writer that joins later
gets some.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from hubbub.chat.commands import Delivery
from hubbub.chat.errors import Unavailable
from hubbub.queues.rabbitmq import DEAD, LOST, URGENT, close, connect, declare, declare_dead, decode, encode, publish
from hubbub.writer.shard import DeadLetter, ShardWriter

log = logging.getLogger("hubbub.writer")

_PREFETCH = 200  # AMQP messages, each with many commands
_MOST_COMMANDS = 2000  # in one transaction
_GATHER_S = 0.5
_BACKLOG = 20  # AMQP messages: with so many there already, more need not gather
_ACTIVE_S = 10.0
_BALANCE_S = 3.0
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class _Reading:
    """One shard: what has arrived, and when something did last.

    ``give_up`` asks for the shard to be given up; ``urgent`` is set when somebody waits for what has arrived.
    """

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self.urgent = asyncio.Event()
        self.last = -_ACTIVE_S
        self.give_up = False

    async def arrived(self, message: AbstractIncomingMessage) -> None:
        self.incoming.put_nowait(message)
        if message.type == URGENT:
            self.urgent.set()


class RabbitConsumer:
    """Reads every shard it is given until ``stop``. ``alive`` says that this writer is, and how many there are."""

    def __init__(self, url: str, shards: int, writer: ShardWriter, alive: Callable[[], Awaitable[int]]) -> None:
        self._url = url
        self._shards = [_Reading() for _ in range(shards)]
        self._writer = writer
        self._alive = alive
        self._stopping = asyncio.Event()
        self._lost = asyncio.Event()

    def stop(self) -> None:
        """Finish the batches under way, then let ``run`` return."""
        self._stopping.set()

    async def run(self, started: Callable[[], None]) -> None:
        """``started`` is called once, when messages can be taken for the first time."""
        failures = 0
        balancing = asyncio.create_task(self._balance())
        while not self._stopping.is_set():
            connection: AbstractConnection | None = None
            try:
                self._lost.clear()
                connection = await connect(self._url, "hubbub writer")
                connection.close_callbacks.add(lambda *_: self._lost.set())
                channels = [await connection.channel() for _ in self._shards]
                dead = await connection.channel(publisher_confirms=True, on_return_raises=True)
                await declare_dead(dead)
                for shard, channel in enumerate(channels):
                    channel.close_callbacks.add(lambda *_: self._lost.set())
                    await channel.set_qos(prefetch_count=_PREFETCH)
                    await declare(channel, shard)
                if failures:
                    log.warning("RabbitMQ answers again.")
                failures = 0
                started()
                await self._read_all(channels, dead)
            except LOST as error:
                if failures == 0:
                    log.error("RabbitMQ can't be used: %r", error)
                failures += 1
            finally:
                if connection is not None:
                    await close(connection)
            if not self._stopping.is_set():
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
        balancing.cancel()
        await asyncio.gather(balancing, return_exceptions=True)

    async def _read_all(self, channels: Sequence[AbstractChannel], dead: AbstractChannel) -> None:
        readers = [asyncio.create_task(self._read(shard, channel, dead)) for shard, channel in enumerate(channels)]
        ends = [asyncio.create_task(self._lost.wait()), asyncio.create_task(self._stopping.wait())]
        await asyncio.wait([*readers, *ends], return_when=asyncio.FIRST_COMPLETED)
        if self._lost.is_set():
            log.error("The connection to RabbitMQ was lost.")
        for reading in self._shards:
            reading.incoming.put_nowait(None)
        for end in ends:
            end.cancel()
        for result in await asyncio.gather(*readers, return_exceptions=True):
            if isinstance(result, BaseException):
                self._lost.set()
                if not isinstance(result, LOST):
                    log.error("A shard's reader failed.", exc_info=result)

    async def _read(self, shard: int, channel: AbstractChannel, dead: AbstractChannel) -> None:
        """Take turns at the shard until the connection is lost or the writer stops."""
        reading = self._shards[shard]
        while not (self._stopping.is_set() or self._lost.is_set()):
            reading.incoming = asyncio.Queue()
            reading.give_up = False
            queue = await channel.get_queue(f"hubbub.shard.{shard}", ensure=False)
            tag = await queue.consume(reading.arrived)
            await self._take(shard, reading, dead)
            if self._lost.is_set():
                return
            await queue.cancel(tag)
            if reading.incoming.qsize():  # delivered and not begun: the next in line gets them
                last = None
                while reading.incoming.qsize():
                    last = reading.incoming.get_nowait() or last
                if last is not None:
                    await last.nack(multiple=True, requeue=True)

    async def _take(self, shard: int, reading: _Reading, dead: AbstractChannel) -> None:
        while not (self._stopping.is_set() or self._lost.is_set() or reading.give_up):
            message = await reading.incoming.get()
            if message is None:
                return
            if reading.incoming.qsize() < _BACKLOG:
                # Few wait for the store: a message was answered, and is shown, since it was queued.
                with suppress(TimeoutError):
                    await asyncio.wait_for(reading.urgent.wait(), _GATHER_S)
            reading.urgent.clear()
            batch = [message]
            commands = 0
            deliveries: list[Delivery] = []
            while message is not None:
                delivery = await self._open(message, dead)
                if delivery is not None:
                    deliveries.append(delivery)
                    commands += len(delivery.commands)
                batch[-1] = message
                if commands >= _MOST_COMMANDS or reading.incoming.empty():
                    break
                message = reading.incoming.get_nowait()
            reading.last = time.monotonic()
            for letter in await self._writer.write(shard, deliveries):
                await self._bury(letter, shard, dead)
            await batch[-1].ack(multiple=True)

    @staticmethod
    async def _open(message: AbstractIncomingMessage, dead: AbstractChannel) -> Delivery | None:
        try:
            return decode(message.body)
        except msgspec.MsgspecError as error:
            log.error("A message that can't be read went to the dead letters: %s", error)
            await publish_dead(dead, message.body, f"can't be read: {error}")
            return None

    async def _bury(self, letter: DeadLetter, shard: int, dead: AbstractChannel) -> None:
        log.error(
            "A %s of shard %d can't be stored and went to the dead letters: %s",
            type(letter.command).__name__,
            shard,
            letter.reason.split(":")[0],
        )
        await publish_dead(dead, encode(Delivery("", 0, [letter.command])), letter.reason)

    async def _balance(self) -> None:
        while True:
            try:
                writers = await self._alive()
            except Unavailable:
                writers = 1
            share = -(-len(self._shards) // max(1, writers))
            now = time.monotonic()
            active = [reading for reading in self._shards if now - reading.last < _ACTIVE_S]
            if len(active) > share:
                active[0].give_up = True
                active[0].last = -_ACTIVE_S
                active[0].incoming.put_nowait(None)
            await asyncio.sleep(_BALANCE_S)


async def publish_dead(channel: AbstractChannel, body: bytes, reason: str) -> None:
    """Confirmed when it returns."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    await publish(channel, DEAD, body, headers={"reason": reason[:1000], "at": at})
