"""The model's words, carried out by the real code: the scripts in a real Redis, and the store in a real database. Each
is compared with a reference.

``HUBBUB_MODEL_REAL`` sets the number of schedules in Redis (there are fewer in the database), ``--fault-seed`` the
first seed. A failure names its seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hubbub.chat.commands import AddApplication, AddChat, AddUser
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey, User
from hubbub.cluster.database import Database
from hubbub.cluster.deliveries import Deliveries
from hubbub.cluster.migrate import migrate
from hubbub.cluster.processes import Processes
from hubbub.cluster.protocol import Delivery
from hubbub.cluster.redis import stored
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.store import MySqlStore
from hubbub.loadtest.servers import MariaDb, Redis
from tests.model.real_database import Applying, Sequence, Tables, compare
from tests.model.real_redis import Drive, small_scripts
from tests.model.real_store import KEPT
from tests.servers import new_database

SCHEDULES = int(os.environ.get("HUBBUB_MODEL_REAL", "100"))
IN_DATABASE, AT_ONCE = max(1, SCHEDULES * 2 // 5), max(1, SCHEDULES // 10)
STEPS = 250
DELIVERIES = 60


@pytest.fixture
async def client(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisClient]:
    monkeypatch.setattr(stored, "_KEPT", KEPT)
    client = RedisClient(redis.url, small_scripts())
    assert await client.connected(10)
    yield client
    await client.close()


async def test_the_scripts_show_what_the_reference_says(client: RedisClient, fault_seed: int) -> None:
    for seed in range(fault_seed, fault_seed + SCHEDULES):
        await Drive(client, seed).run(STEPS)


@pytest.fixture
def databases(mariadb: MariaDb) -> Iterator[list[Database]]:
    """The connections of two writers to one database."""
    url = new_database(mariadb)
    databases = [Database(url), Database(url)]
    migrate(databases[0].engine)
    Processes(databases[0]).make_generation(0, 1, "a data set")
    yield databases
    for database in databases:
        database.close()


def new_chat(store: MySqlStore, seed: int) -> ChatKey:
    token = f"real{seed}"
    (user,) = store.apply([AddUser(token, f"{token}@x", "A", "hash", 1)])
    assert isinstance(user, User)
    store.apply([AddApplication(token, "T", user.id, 2), AddChat(token, None, 3)])
    return ChatKey(token, 1)


async def test_the_store_applies_what_the_reference_does(databases: list[Database], fault_seed: int) -> None:
    store = MySqlStore(databases[0])
    for shard, seed in enumerate(range(fault_seed, fault_seed + IN_DATABASE)):
        chat = new_chat(store, seed)
        applying = Applying(databases, seed, shard, chat, DELIVERIES)
        try:
            applying.run()
            if seed % 2:
                store.uncounted.add(chat)
                store.count_messages()
            compare(databases[0], shard, chat, applying.tables)
            counted = await store.chat(chat)
            assert counted is not None
            assert counted.messages_count == len(applying.tables.messages)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


async def test_two_writers_at_once_apply_what_the_reference_does(databases: list[Database], fault_seed: int) -> None:
    """Both go through the queue, each in its own steps, and sometimes go back."""
    store = MySqlStore(databases[0])
    for shard, seed in enumerate(range(fault_seed, fault_seed + AT_ONCE)):
        chat = new_chat(store, seed)
        queue = Sequence(random.Random(seed), chat, DELIVERIES, markers=False).deliveries
        tables = Tables()
        for delivery in queue:
            for command in delivery.commands:
                tables.apply(command)
            tables.publishers[delivery.publisher] = delivery.sequence

        def write(database: Database, draw: random.Random, shard: int = shard, queue: list[Delivery] = queue) -> None:
            deliveries, at = Deliveries(database, set(), note_changes=True), 0
            while at < len(queue):
                many = draw.choice((1, 3, 8))
                try:
                    deliveries.apply(shard, 4, queue[at : at + many])
                except Unavailable:  # a deadlock; a writer tries again after any such error
                    continue
                at = max(0, at - 3) if draw.random() < 0.15 else at + many

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, databases, (random.Random(seed * 2), random.Random(seed * 2 + 1))))
        try:
            compare(databases[0], shard, chat, tables)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
