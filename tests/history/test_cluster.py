"""Random faults to a cluster of two API and two writer processes, from a seed, as in test_embedded.

While a lost Redis is refilled lists may lag, so what is read then is not held against the service; what is stored is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.history.record import Blind
from tests.history.workload import Workload
from tests.servers import need_servers

Judge = Callable[[Workload, "Counter[str]"], Awaitable[None]]


class Victim:
    def __init__(self, stack: ClusterStack, rng: random.Random) -> None:
        self.stack = stack
        self.rng = rng

    async def kill_api(self) -> None:
        part = self.rng.choice(self.stack.apis)
        part.kill()
        await asyncio.to_thread(part.start)

    async def kill_writer(self) -> None:
        part = self.rng.choice(self.stack.writers)
        part.kill()
        await asyncio.to_thread(part.start)

    async def kill_mariadb(self) -> None:
        self.stack.mariadb.kill()
        await asyncio.to_thread(self.stack.mariadb.start)

    async def kill_rabbitmq(self) -> None:
        self.stack.rabbitmq.kill()
        await asyncio.to_thread(self.stack.rabbitmq.start)

    async def kill_redis(self) -> None:
        self.stack.redis.kill()
        await asyncio.to_thread(self.stack.redis.start)

    async def flush_redis(self) -> None:
        self.stack.redis.command("FLUSHALL")

    async def freeze(self) -> None:
        server = self.rng.choice([self.stack.mariadb, self.stack.rabbitmq, self.stack.redis])
        server.pause()
        await asyncio.sleep(self.rng.uniform(0.2, 3))
        server.resume()

    async def ready(self) -> None:
        async with asyncio.timeout(60), httpx.AsyncClient(timeout=5) as client:
            for part in self.stack.apis:
                while not await _ready(client, part.url):
                    await asyncio.sleep(0.05)


async def _ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url + "/readyz")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def victim(fault_seed: int) -> Iterator[Victim]:
    need_servers()
    with ClusterStack(apis=2, writers=2, search=None) as stack:
        yield Victim(stack, random.Random(fault_seed))


async def test_random_faults_break_no_promise(victim: Victim, fault_seed: int, fault_rounds: int, judge: Judge) -> None:
    ways: list[Callable[[], Awaitable[None]]] = [
        victim.kill_api,
        victim.kill_writer,
        victim.kill_redis,
        victim.flush_redis,
        victim.kill_mariadb,
        victim.freeze,
        victim.kill_rabbitmq,
    ]
    done: Counter[str] = Counter()
    workload = Workload(lambda: [part.url for part in victim.stack.apis], fault_seed)
    async with workload:
        for round_ in range(max(fault_rounds // 5, 4)):
            await workload.more(victim.rng.randint(5, 80))
            way = ways[round_] if round_ < len(ways) else victim.rng.choice(ways)
            begun = time.monotonic()
            await way()
            await victim.ready()
            await workload.more(10)
            if way in (victim.kill_redis, victim.flush_redis):
                await _caught_up(victim.stack)
                workload.history.blind.append(Blind(begun, time.monotonic()))
            done[way.__name__] += 1
        await workload.more(50)
    await judge(workload, done)


async def _caught_up(stack: ClusterStack) -> None:
    """All that was queued when Redis was lost is stored: a moment with empty queues has come since."""
    async with asyncio.timeout(60), httpx.AsyncClient(timeout=5) as client:
        while True:
            lines = (await client.get(stack.url + "/metrics")).text.splitlines()
            depths = [line.rsplit(" ", 1)[1] for line in lines if line.startswith("hubbub_queue_depth_messages{")]
            if depths and all(float(depth) == 0 for depth in depths):
                return
            await asyncio.sleep(0.02)
