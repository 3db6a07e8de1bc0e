"""A Hubbub that is broken on purpose: a writer that gives up a shard cancels its consumer and sends back what it holds,
while the next in line has what comes behind it; and the store takes a delivery that comes before an earlier one.
"""

import time
from asyncio import Queue
from collections.abc import Sequence
from typing import Any

from aio_pika.abc import AbstractConnection

from hubbub.cluster import deliveries
from hubbub.cluster.broker import declare
from hubbub.cluster.consumer import RabbitConsumer
from hubbub.cluster.protocol import Applied, Delivery


async def read(self: RabbitConsumer, shard: int, connection: AbstractConnection) -> None:
    reading = self._shards[shard]
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=200)
    queue = await declare(connection, channel, shard)
    while not self._lost.is_set():
        reading.incoming = Queue()
        reading.give_up = False
        tag = await queue.consume(reading.arrived)
        await self._take(shard, reading, [])
        if self._lost.is_set() and not self._stopping.is_set():
            return
        await queue.cancel(tag)
        last = None
        while reading.incoming.qsize():
            last = reading.incoming.get_nowait() or last
        if last is not None:
            await last.nack(multiple=True, requeue=True)


_apply = deliveries.Deliveries.apply


def apply(self: deliveries.Deliveries, shard: int, shards: int, deliveries: Sequence[Delivery]) -> Applied:
    time.sleep(0.1)  # a database that takes its time, so that few hand-overs are enough
    return _apply(self, shard, shards, deliveries)


def decided(cursor: Any, shard: int, delivery: Delivery, expected: int) -> str:
    """Count what is missing as applied."""
    return "accepted"


deliveries.decided = decided  # type: ignore[attr-defined]  # the name that apply looks up
RabbitConsumer._read = read  # type: ignore[method-assign]
deliveries.Deliveries.apply = apply  # type: ignore[method-assign]
