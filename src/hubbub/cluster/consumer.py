"""The writer's end of RabbitMQ: one active consumer reads each shard in order; the others stand by.

RabbitMQ's "single active consumer" decides which writer reads a shard. When a writer dies, its shards go to the next in
line at once. A writer that has been active on more shards than its share gives one up, so that a writer that joins
later gets some.

A turn ends only by closing the channel (rule 1): that makes the broker redeliver, in order and before anything newer,
all messages that were delivered and not acknowledged. A cancelled consumer would keep its unacknowledged messages,
while the next in line already receives the ones behind them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from hubbub.chat.errors import Unavailable
from hubbub.cluster.broker import LOST, URGENT, close, connect, declare
from hubbub.cluster.protocol import Delivery, SequenceGap, Unreadable, decode
from hubbub.cluster.sequence_gaps import ShardStopped
from hubbub.cluster.writer import ShardWriter

log = logging.getLogger("hubbub.writer")

_PREFETCH = 200  # AMQP messages, each with many commands
_MOST_COMMANDS = 2000  # in one transaction
_MOST_BYTES = 16 * 1024 * 1024  # in one transaction; a single delivery may be as large as a publisher makes it
_GATHER_S = 0.5
_BACKLOG = 20  # AMQP messages: with so many waiting, there is no need to wait for more
_ACTIVE_S = 10.0
_BALANCE_S = 3.0
_GAP_S = 0.5  # before a queue with a gap is read again
_GAP_TRIES = 6
_STOPPED_S = 5.0
_FINISH_S = 5.0
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class _Reading:
    """The state of reading one shard: ``incoming`` has the messages that have arrived, ``last`` is when the last batch
    was read.

    ``give_up`` asks for the shard to be given up; ``urgent`` is set when a sender waits for one of the messages.
    """

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self.urgent = asyncio.Event()
        self.last = -_ACTIVE_S
        self.give_up = False
        self.gap: tuple[str, int] | None = None
        self.tries = 0
        self.stopped = False

    async def arrived(self, message: AbstractIncomingMessage) -> None:
        self.incoming.put_nowait(message)
        if message.type == URGENT:
            self.urgent.set()


class RabbitConsumer:
    """Reads the shards that the broker assigns to it, until ``stop``.

    ``heartbeat`` records that this writer runs, and returns how many writers there are; ``decide`` decides about a gap
    that stays, and records that; ``unreadable`` stores a message that can't be read, with the reason.
    """

    def __init__(
        self,
        url: str,
        shards: int,
        writer: ShardWriter,
        *,
        heartbeat: Callable[[], Awaitable[int]],
        decide: Callable[[SequenceGap, list[Delivery]], None],
        unreadable: Callable[[int, bytes, str], None],
    ) -> None:
        self._url = url
        self._shards = [_Reading() for _ in range(shards)]
        self._writer = writer
        self._heartbeat = heartbeat
        self._decide = decide
        self._unreadable = unreadable
        self._stopping = asyncio.Event()
        self._lost = asyncio.Event()
        self.stopped_shards: set[int] = set()

    def stop(self) -> None:
        """Finish the current batches, then let ``run`` return."""
        self._stopping.set()

    async def run(self, started: Callable[[], None]) -> None:
        """Read until ``stop``. ``started`` is called each time there is a connection."""
        failures = 0
        async with asyncio.TaskGroup() as tasks:
            balancing = tasks.create_task(self._balance())
            while not self._stopping.is_set():
                connection: AbstractConnection | None = None
                try:
                    self._lost.clear()
                    connection = await connect(self._url, "hubbub writer")
                    connection.close_callbacks.add(lambda *_: self._lost.set())
                    if failures:
                        log.warning("RabbitMQ answers again.")
                    failures = 0
                    started()
                    await self._read_all(connection)
                except* LOST as error:
                    if failures == 0:
                        log.error("RabbitMQ can't be used: %r", error.exceptions[0])
                    failures += 1
                finally:
                    if connection is not None:
                        await close(connection)
                if not self._stopping.is_set():
                    await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
            balancing.cancel()

    async def _read_all(self, connection: AbstractConnection) -> None:
        """Read all shards until the connection is lost or the writer stops. An error in one shard's reader ends all
        readers and is raised, so no shard is left unread unnoticed."""
        async with asyncio.TaskGroup() as readers:
            reading = [readers.create_task(self._read(shard, connection)) for shard in range(len(self._shards))]
            lost = readers.create_task(self._lost.wait())
            stopping = readers.create_task(self._stopping.wait())
            await asyncio.wait([lost, stopping], return_when=asyncio.FIRST_COMPLETED)
            if self._lost.is_set():
                log.error("The connection to RabbitMQ was lost.")
            self._lost.set()
            stopping.cancel()
            for shard in self._shards:
                shard.incoming.put_nowait(None)
            # The current batches are finished if the store accepts them. Otherwise they are delivered again, and are
            # still applied only once.
            _, late = await asyncio.wait(reading, timeout=_FINISH_S)
            for task in late:
                task.cancel()

    async def _read(self, shard: int, connection: AbstractConnection) -> None:
        """Take turns at the shard until the connection is lost or the writer stops."""
        reading = self._shards[shard]
        while not self._lost.is_set():
            reading.incoming = asyncio.Queue()
            reading.urgent.clear()
            reading.give_up = False
            self.stopped_shards.discard(shard)  # a consumer that stands by does not know
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=_PREFETCH)
            queue = await declare(connection, channel, shard)
            incoming = reading.incoming
            channel.close_callbacks.add(lambda *_, incoming=incoming: incoming.put_nowait(None))
            await queue.consume(reading.arrived)
            pause = 0.0
            held: list[Delivery] = []
            try:
                await self._take(shard, reading, held)
            except SequenceGap as gap:
                pause = _GAP_S
                await self._found(reading, gap, held)
            except ShardStopped as error:
                pause = _STOPPED_S
                self.stopped_shards.add(shard)
                if not reading.stopped:
                    reading.stopped = True
                    log.critical("%s Acknowledged commands are missing. `hubbub shards` says more.", error)
            if self._lost.is_set():
                return  # the connection is closed next, and the channel with it
            await channel.close()
            if pause:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._lost.wait()

    async def _found(self, reading: _Reading, gap: SequenceGap, held: list[Delivery]) -> None:
        """Note that a gap was found. The queue is read again; if the gap stays after several tries, decide about
        it."""
        this = gap.publisher, gap.expected
        reading.tries = reading.tries + 1 if reading.gap == this else 1
        reading.gap = this
        log.error("A delivery arrived before an earlier one; the queue is read again (try %d): %s", reading.tries, gap)
        if reading.tries >= _GAP_TRIES:
            reading.gap, reading.tries = None, 0
            try:
                await asyncio.to_thread(self._decide, gap, held)
            except Unavailable as error:
                log.error("A gap in the deliveries could not be recorded: %s", error.sentence)

    async def _take(self, shard: int, reading: _Reading, held: list[Delivery]) -> None:
        """Write batches until the turn ends. ``held`` is filled with the deliveries of the current batch."""
        while not (self._lost.is_set() or reading.give_up):
            message = await reading.incoming.get()
            if message is None:
                return
            if reading.incoming.qsize() < _BACKLOG:
                # A larger batch is cheaper, and few wait for the store: a message is shown and acknowledged as soon as
                # it is queued.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_GATHER_S):
                        await reading.urgent.wait()
            reading.urgent.clear()
            held.clear()
            last = message
            commands = size = 0
            while message is not None:
                delivery = await self._open(shard, message)
                if delivery is not None:
                    held.append(delivery)
                    commands += len(delivery.commands)
                    size += len(message.body)
                last = message
                if commands >= _MOST_COMMANDS or size >= _MOST_BYTES or reading.incoming.empty():
                    break
                message = reading.incoming.get_nowait()
            reading.last = time.monotonic()
            await self._writer.write(shard, held)
            reading.stopped = False
            reading.gap = None
            await last.ack(multiple=True)
            if message is None:
                return

    async def _open(self, shard: int, message: AbstractIncomingMessage) -> Delivery | None:
        try:
            return decode(message.body)
        except Unreadable as error:
            log.error("A message that can't be read is set aside: %s", error)
            await self._writer.until_stored(self._unreadable, shard, message.body, f"can't be read: {error}")
            return None

    async def _balance(self) -> None:
        while True:
            try:
                writers = await self._heartbeat()
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
