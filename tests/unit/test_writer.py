"""When Redis could not be informed of what is stored, it is informed later (rule 8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from hubbub.chat.commands import Outcome
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.cluster import writer as module
from hubbub.cluster.protocol import Applied, AppliedBefore, Delete, Delivery, Edit, Position, Post
from hubbub.cluster.writer import ShardWriter
from tests.conftest import eventually_async

CHAT = ChatKey("token", 1)
COMMANDS: list[Post | Edit | Delete] = [
    Post(CHAT, 1, 1, "Ann", "a text", 5),
    Edit(CHAT, 1, 1, "another", 6),
    Delete(CHAT, 1, 1, False),
]


class Store:
    """A store that accepts everything."""

    def apply(self, shard: int, shards: int, deliveries: Sequence[Delivery]) -> Applied:
        return Applied(Position(shards, shard, 9), [[None for _ in each.commands] for each in deliveries])


class Redis:
    """A Redis that raises an error while it ``refuses``. ``heard`` has what it received."""

    def __init__(self) -> None:
        self.refuses = True
        self.tries = 0
        self.heard: list[tuple[ChatKey, list[tuple[Post | Edit | Delete, Outcome]], Position]] = []

    async def stored(
        self, chat: ChatKey, commands: Sequence[tuple[Post | Edit | Delete, Outcome]], position: Position
    ) -> None:
        self.tries += 1
        if self.refuses:
            raise Unavailable("Redis refuses.")
        self.heard.append((chat, list(commands), position))


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
async def writer(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ShardWriter]:
    monkeypatch.setattr(module, "_TELL_AGAIN_S", 0.01)
    writer = ShardWriter(cast(Any, Store()), cast(Any, redis), 4)
    telling = asyncio.create_task(writer.tell_again())
    yield writer
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)


async def test_redis_is_informed_of_everything_once_it_answers_again(writer: ShardWriter, redis: Redis) -> None:
    await writer.write(2, [Delivery("api", 1, [*COMMANDS], 0)])
    await eventually_async(lambda: redis.tries > 3)
    assert redis.heard == []
    redis.refuses = False
    await eventually_async(lambda: bool(redis.heard))
    ((chat, commands, position),) = redis.heard
    assert (chat, position) == (CHAT, Position(4, 2, 9))
    assert [(type(command), command.number, outcome) for command, outcome in commands] == [
        (type(command), 1, AppliedBefore()) for command in COMMANDS
    ]
    await writer.write(2, [Delivery("api", 2, [*COMMANDS], 1)])
    await asyncio.sleep(0.05)  # long enough to be told of it again
    assert len(redis.heard) == 2


async def test_what_waits_is_bounded_and_the_oldest_is_dropped(
    writer: ShardWriter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_UNTOLD", 6)
    for sequence in range(1, 6):
        await writer.write(0, [Delivery("api", sequence, [*COMMANDS[:2], Delete(CHAT, sequence, 1, False)], 0)])
    redis.refuses = False
    await eventually_async(lambda: len(redis.heard) == 2)
    assert [commands[-1][0].number for _, commands, _ in redis.heard] == [4, 5]
