"""What Redis forgets some time after it is stored is read from the database again."""

from __future__ import annotations

import asyncio
import json

import pytest

from hubbub.chat.caller import Caller
from hubbub.chat.commands import AddApplication, AddChat, AddUser
from hubbub.chat.model import ChatKey
from hubbub.loadtest.servers import MariaDb, RabbitMq, Redis
from tests.ports.cluster import cluster

CHAT = ChatKey("token", 1)


async def until_gone(redis: Redis, pattern: str) -> None:
    """Wait until Redis has no such key."""
    async with asyncio.timeout(10):
        while not redis.command(f"KEYS {pattern}").startswith(b"*0"):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("lifetime", "pattern"),
    [("STORED_LIFETIME_MS", "*:c:{token}:1"), ("STORED_KEY_MS", "*:k:{token}:1:*")],
    ids=["chat", "key"],
)
async def test_what_redis_has_forgotten_is_read_again(
    mariadb: MariaDb, rabbitmq: RabbitMq, redis: Redis, monkeypatch: pytest.MonkeyPatch, lifetime: str, pattern: str
) -> None:
    monkeypatch.setattr(f"hubbub.cluster.redis.stored.{lifetime}", 100)
    async with cluster(mariadb, rabbitmq, redis) as way:
        ann = Caller(await way.intake.accept(AddUser("ref", "a@x", "A", "hash", 1)))
        await way.intake.accept(AddApplication(CHAT.token, "T", ann.user.id, 2))
        await way.intake.accept(AddChat(CHAT.token, None, 3))
        assert await (await way.intake.post(ann, CHAT, "first", "key")) == 1
        await way.stored()
        await until_gone(redis, pattern)
        assert await (await way.intake.post(ann, CHAT, "first", "key")) == 1
        assert await (await way.intake.post(ann, CHAT, "second", None)) == 2
        page = json.loads((await way.view.newest(ann, CHAT, 10)).body)
        assert [message["body"] for message in page] == ["second", "first"]
