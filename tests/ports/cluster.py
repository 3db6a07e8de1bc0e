"""A cluster's intake and its writer, in this process over real servers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from hubbub.chat.commands import Command, Outcome
from hubbub.chat.errors import Unavailable
from hubbub.cluster import drains
from hubbub.cluster.broker import close, connect, declare, send_markers
from hubbub.cluster.consumer import RabbitConsumer
from hubbub.cluster.dead_letters import DeadLetters
from hubbub.cluster.generations import Generations, follow
from hubbub.cluster.intake import QueuedIntake
from hubbub.cluster.processes import Processes
from hubbub.cluster.publisher import NeverSent, Publisher, Reservation
from hubbub.cluster.redis.gate import RedisGate
from hubbub.cluster.redis.messages import RedisView
from hubbub.cluster.redis.numbers import Numbers
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.redis.stored import Stored
from hubbub.cluster.sequence_gaps import SequenceGaps
from hubbub.cluster.writer import ShardWriter
from hubbub.http.limits import LocalGate
from hubbub.loadtest.servers import MariaDb, RabbitMq, Redis
from tests.ports.stores import ClusterStore
from tests.servers import new_database

_SHARDS = 2


class Stuck(ClusterStore):
    """A store that refuses every batch while ``stuck``."""

    stuck = False

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        if self.stuck:
            raise Unavailable("The database is away.")
        return super().apply(batch)


class Full(Publisher):
    """A publisher that refuses every post while ``full``."""

    full = False

    def hold(self, token: str, characters: int, user_id: int) -> Reservation:
        if self.full:
            raise NeverSent("The write queue is full.")
        return super().hold(token, characters, user_id)


class Way:
    """A cluster: its intake, the view of what is shown, the store, and ``gate_of`` makes a gate that lets in this many
    requests of a user a second. ``stored`` waits for the writer."""

    def __init__(
        self,
        url: str,
        store: Stuck,
        publisher: Full,
        intake: QueuedIntake,
        view: RedisView,
        servers: Servers,
        gate_of: Callable[[int], RedisGate],
    ) -> None:
        self.servers = servers
        self.gate_of = gate_of
        self.url = url
        self.store = store
        self.publisher = publisher
        self.intake = intake
        self.view = view

    def refuse(self, refusing: bool) -> None:
        self.store.stuck = self.publisher.full = refusing

    async def stored(self) -> None:
        """Send a marker and wait until it has passed through every queue."""
        marker = f"test.{secrets.token_hex(8)}"
        await send_markers(self.url, _SHARDS, marker)
        processes = Processes(self.store.database)
        async with asyncio.timeout(20):
            while await asyncio.to_thread(processes.reached, marker) < _SHARDS:
                await asyncio.sleep(0.02)


async def purge(url: str) -> None:
    """Empty the queues, because an earlier test's messages are for a database that is gone."""
    connection = await connect(url, "test")
    channel = await connection.channel()
    for shard in range(_SHARDS):
        await (await declare(connection, channel, shard)).purge()
    await close(connection)


@asynccontextmanager
async def cluster(mariadb: MariaDb, rabbitmq: RabbitMq, redis: Redis) -> AsyncIterator[Way]:
    store = Stuck(new_database(mariadb))
    redis.command("FLUSHALL")
    await purge(rabbitmq.url)
    processes = Processes(store.database)
    publisher = Full(rabbitmq.url, _SHARDS)
    servers, writers_servers = Servers([redis.url]), Servers([redis.url])
    pages, applications = Pages(10), Applications()
    numbers = Numbers(servers, store, publisher, pages)
    generations = Generations(processes, servers, "test", lambda: None)
    intake = QueuedIntake(publisher, store, numbers, servers, generations, lambda: 1000)
    view = RedisView(servers, store, numbers, publisher, applications, pages, generations)

    def gate_of(rate: int) -> RedisGate:
        return RedisGate(servers, publisher, applications, pages, user_rate=rate, alone=LocalGate(rate))

    way = Way(rabbitmq.url, store, publisher, intake, view, servers, gate_of)
    writer = ShardWriter(store.deliveries, Stored(writers_servers, store), _SHARDS)

    async def heartbeat() -> int:
        return 1

    consumer = RabbitConsumer(
        rabbitmq.url,
        _SHARDS,
        writer,
        heartbeat=heartbeat,
        decide=SequenceGaps(store.database).decide,
        unreadable=DeadLetters(store.database).keep,
    )
    tasks = [
        asyncio.create_task(follow(processes, writers_servers.clients)),
        asyncio.create_task(drains.watch(servers, publisher)),
    ]
    running = asyncio.create_task(consumer.run(lambda: None))
    assert await publisher.connected(20)
    assert await servers.in_use(20)
    assert await writers_servers.in_use(20)
    yield way
    await intake.close()
    await publisher.close()
    consumer.stop()
    await running
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await generations.close()
    await servers.close()
    await writers_servers.close()
    store.close()
