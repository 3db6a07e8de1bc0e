"""How much travels in one message of the queue, and how much of the queue a writer takes at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from hubbub.chat.model import ChatKey
from hubbub.cluster import consumer, publisher
from hubbub.cluster.broker import queue_name
from hubbub.cluster.consumer import RabbitConsumer
from hubbub.cluster.protocol import Delivery, Post
from hubbub.cluster.publisher import Publisher
from hubbub.loadtest.servers import RabbitMq
from tests.ports.cluster import purge


class Writer:
    """Records the batches that a consumer gives it. While ``gate`` is closed, it holds its batch."""

    def __init__(self) -> None:
        self.batches: list[list[Delivery]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, _shard: int, deliveries: Sequence[Delivery]) -> None:
        self.batches.append(list(deliveries))
        await self.gate.wait()

    @property
    def deliveries(self) -> list[Delivery]:
        return [delivery for batch in self.batches for delivery in batch]

    @property
    def numbers(self) -> list[int]:
        """The numbers of all posts, in the order in which they came."""
        return [cast(Post, command).number for delivery in self.deliveries for command in delivery.commands]


@pytest.fixture
async def sender(rabbitmq: RabbitMq, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Publisher]:
    """A publisher to one shard, whose queue is empty."""
    monkeypatch.setattr(consumer, "_GATHER_S", 0.1)
    sender = Publisher(rabbitmq.url, 1)
    assert await sender.connected(20)
    await purge(rabbitmq.url)
    yield sender
    await sender.close()


async def send(sender: Publisher, count: int, characters: int = 1) -> None:
    """Send posts, and wait until the broker has confirmed all of them."""
    chat, body = ChatKey("token", 1), "x" * characters
    posts = [Post(chat, number, 1, "A", body, 1) for number in range(count)]
    for ticket in [sender.send(post, sender.hold(chat.token, characters, 1)) for post in posts]:
        assert await ticket is None


@asynccontextmanager
async def reading(server: RabbitMq, writer: Writer) -> AsyncIterator[None]:
    async def heartbeat() -> int:
        return 1

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is unreadable here, and nothing is missing")

    reads = RabbitConsumer(server.url, 1, cast(Any, writer), heartbeat=heartbeat, decide=refuse, unreadable=refuse)
    running = asyncio.create_task(reads.run(lambda: None))
    try:
        yield
    finally:
        writer.gate.set()
        reads.stop()
        await running


async def until_read(writer: Writer, count: int) -> None:
    """Wait until so many posts have come, and check that they came in their order."""
    async with asyncio.timeout(20):
        while len(writer.numbers) < count:
            await asyncio.sleep(0.01)
    assert writer.numbers == list(range(count))


@pytest.mark.parametrize(
    ("limit", "value", "characters", "sizes"),
    [("_MOST_TOGETHER", 10, 1, [10, 10, 5]), ("_MOST_BYTES", 10_000, 500, [10, 10, 5])],
)
async def test_the_next_message_has_what_one_does_not_take(
    rabbitmq: RabbitMq,
    sender: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    characters: int,
    sizes: list[int],
) -> None:
    monkeypatch.setattr(publisher, limit, value)
    writer = Writer()
    await send(sender, 25, characters)
    async with reading(rabbitmq, writer):
        await until_read(writer, 25)
    assert [len(delivery.commands) for delivery in writer.deliveries] == sizes


@pytest.mark.parametrize(("limit", "value"), [("_MOST_COMMANDS", 10), ("_MOST_BYTES", 10_000)])
async def test_the_next_transaction_has_what_one_does_not_take(
    rabbitmq: RabbitMq, sender: Publisher, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(publisher, "_MOST_TOGETHER", 4)
    monkeypatch.setattr(consumer, limit, value)
    writer = Writer()
    await send(sender, 24, 900)
    async with reading(rabbitmq, writer):
        await until_read(writer, 24)
    assert max(len(batch) for batch in writer.batches) <= 3, "deliveries of four posts with some 1,000 bytes each"


async def test_rabbitmq_keeps_what_a_writer_does_not_hold(
    rabbitmq: RabbitMq, sender: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_MOST_TOGETHER", 1)
    monkeypatch.setattr(consumer, "_PREFETCH", 5)
    writer = Writer()
    writer.gate.clear()
    await send(sender, 12)
    async with reading(rabbitmq, writer):
        async with asyncio.timeout(20):
            while not writer.batches or await sender.backlog() != {queue_name(0): 7}:
                await asyncio.sleep(0.01)
        assert len(writer.deliveries) <= 5
        writer.gate.set()
        await until_read(writer, 12)


async def test_a_sender_who_waits_for_each_answer_is_not_held_up(
    sender: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_APART_S", 60.0)
    async with asyncio.timeout(20):
        for _ in range(10):
            await send(sender, 1)


async def test_commands_of_several_senders_share_messages(
    rabbitmq: RabbitMq, sender: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_APART_S", 0.5)
    monkeypatch.setattr(publisher, "_SHARED_S", 60.0)

    async def post() -> None:
        for _ in range(3):
            await send(sender, 1)

    await asyncio.gather(*(post() for _ in range(10)))
    writer = Writer()
    async with reading(rabbitmq, writer):
        async with asyncio.timeout(20):
            while len(writer.numbers) < 30:
                await asyncio.sleep(0.01)
    # The first message has no more than was there, and the others what came within half a second.
    assert len([delivery for delivery in writer.deliveries if delivery.commands]) <= 6
