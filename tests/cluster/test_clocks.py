"""Clocks that are wrong, or are set: none makes the store forget a publisher that goes on under its name, so that its
shards would stop, or makes a chat wait that is to be opened."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import closing, suppress

import pytest

from hubbub.cluster.housekeeping import keep_house
from hubbub.cluster.processes import Processes
from hubbub.cluster.protocol import Delivery
from hubbub.cluster.publisher import _Shard
from hubbub.cluster.redis.servers import Servers
from hubbub.loadtest.servers import MariaDb, RabbitMq, Redis
from tests.ports.stores import ClusterStore
from tests.servers import new_database

_SHARDS = 2
_DAY_S = 24 * 3600


class Reached(Processes):
    """It says at once that all that was queued is applied."""

    asked = 0

    def reached(self, publisher: str) -> int:
        self.asked += 1
        return _SHARDS


async def test_a_writer_whose_clock_is_ahead_forgets_no_publisher(
    mariadb: MariaDb, rabbitmq: RabbitMq, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(ClusterStore(new_database(mariadb))) as store:
        publisher = secrets.token_hex(12)
        store.deliveries.apply(0, _SHARDS, [Delivery(publisher, 1, [], 0)])
        store.database.run(lambda cursor: cursor.execute("UPDATE publishers SET applied_at = applied_at - 10"))
        processes, real = Reached(store.database), time.time
        monkeypatch.setattr("hubbub.cluster.housekeeping.time.time", lambda: real() + 8 * _DAY_S)
        house = asyncio.create_task(keep_house(store, processes, rabbitmq.url, _SHARDS, lambda: int(real() * 1000)))
        async with asyncio.timeout(30):
            while not processes.asked:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
        house.cancel()
        with suppress(asyncio.CancelledError):
            await house
        assert store.deliveries.apply(0, _SHARDS, [Delivery(publisher, 2, [], 1)]).outcomes == [[]]


@pytest.mark.parametrize(
    ("clock_s", "machine_s", "renewed"),
    [
        (1, 1, False),
        (2 * _DAY_S, 2 * _DAY_S, True),
        (-5 * _DAY_S, 3 * _DAY_S, True),
        (0, 8 * _DAY_S, True),
        (8 * _DAY_S, 0, True),
    ],
    ids=["no silence", "two days", "the clock was set back since", "as far as it went on", "the machine slept"],
)
def test_a_publisher_that_was_silent_takes_a_new_name(
    monkeypatch: pytest.MonkeyPatch, clock_s: int, machine_s: int, renewed: bool
) -> None:
    shard = _Shard("a queue")
    first = shard.next([])
    clock, machine = time.time() + clock_s, time.monotonic() + machine_s
    monkeypatch.setattr("hubbub.cluster.publisher.time.time", lambda: clock)
    monkeypatch.setattr("hubbub.cluster.publisher.time.monotonic", lambda: machine)
    second = shard.next([])
    assert (second.publisher != first.publisher, second.sequence) == (renewed, 1 if renewed else 2)


@pytest.mark.parametrize(
    ("ahead_ms", "answer"), [(-2500, b"announced"), (-500, b"wait"), (3_600_000, b"announced")], ids=str
)
async def test_a_marker_is_announced_again_though_the_clock_of_redis_was_set_back(
    redis: Redis, ahead_ms: int, answer: bytes
) -> None:
    servers = Servers([redis.url])
    assert await servers.connected(10)
    (client,), chat = servers.clients, secrets.token_hex(8)
    last = int(time.time() * 1000) + ahead_ms
    await client.call("HSET", f"markers {chat}", "announced", last)
    assert await client.script("want", 2, f"chat {chat}", f"markers {chat}", "a marker") == answer
    await servers.close()
