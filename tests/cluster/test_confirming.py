"""Publishing over our own connection to RabbitMQ: what is confirmed is in the queue, and doubt is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage

from hubbub.cluster import amqp_frames as amqp
from hubbub.cluster import broker, confirming
from hubbub.cluster.confirming import Confirming
from hubbub.loadtest.servers import RabbitMq
from tests.servers import need_servers

_queues = itertools.count(1)


@asynccontextmanager
async def connected(url: str, heartbeat_s: int = 3) -> AsyncIterator[Confirming]:
    connection = await confirming.connect(url, "test", heartbeat_s=heartbeat_s, within_s=10)
    yield connection
    await connection.close()


async def new_queue(url: str, **arguments: object) -> str:
    """Declare a durable quorum queue and return its name."""
    name = f"hubbub.test{next(_queues)}"
    connection = await broker.connect(url, "test")
    channel = await connection.channel()
    await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"} | dict(arguments))  # type: ignore[arg-type]
    await broker.close(connection)
    return name


async def read(url: str, name: str) -> list[tuple[bytes, str | None]]:
    """Take all messages out of the queue; their bodies and types, in order."""
    connection = await broker.connect(url, "test")
    channel = await connection.channel()
    queue = await channel.declare_queue(name, passive=True)
    found: list[tuple[bytes, str | None]] = []

    async def take(message: AbstractIncomingMessage) -> None:
        found.append((message.body, message.type))

    await queue.consume(take, no_ack=True)
    before = -1
    while before != len(found):
        before = len(found)
        await asyncio.sleep(1)
    await broker.close(connection)
    return found


async def read_again(url: str, name: str) -> list[tuple[bytes, str | None]]:
    """As ``read``, from a broker that is starting."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await asyncio.wait_for(read(url, name), 10)
            except broker.LOST:
                await asyncio.sleep(0.5)


async def outcome(published: asyncio.Future[str | None]) -> str | None:
    return await asyncio.wait_for(published, 20)


def note(told: list[tuple[int, str | None]], number: int, published: asyncio.Future[str | None]) -> None:
    """Note the outcome of a message when it comes."""
    published.add_done_callback(lambda future: told.append((number, future.result())))


async def test_what_is_confirmed_is_in_the_queue_in_order(rabbitmq: RabbitMq) -> None:
    name = await new_queue(rabbitmq.url)
    async with connected(rabbitmq.url) as connection:
        published = [
            connection.publish(name, b"%d" % number, broker.URGENT if number == 7 else None) for number in range(500)
        ]
        assert {await outcome(each) for each in published} == {None}
    assert await read(rabbitmq.url, name) == [
        (b"%d" % number, "urgent" if number == 7 else None) for number in range(500)
    ]


@pytest.mark.parametrize("size", [0, 131_064, 131_065, 1_000_000])
async def test_a_body_of_any_size_arrives_as_it_was(rabbitmq: RabbitMq, size: int) -> None:
    name = await new_queue(rabbitmq.url)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with connected(rabbitmq.url) as connection:
        assert await outcome(connection.publish(name, body)) is None
        assert await outcome(connection.publish(name, b"after")) is None
    assert await read(rabbitmq.url, name) == [(body, None), (b"after", None)]


@pytest.mark.parametrize("body", [b"", b"text", b"x" * 300_000])
async def test_a_message_without_a_queue_is_not_confirmed(rabbitmq: RabbitMq, body: bytes) -> None:
    name = await new_queue(rabbitmq.url)
    async with connected(rabbitmq.url) as connection:
        published = [connection.publish(queue, body) for queue in (name, "hubbub.nowhere", name)]
        first, second, third = [await outcome(each) for each in published]
        assert (first, third) == (None, None)
        assert "NO_ROUTE" in str(second)
    assert len(await read(rabbitmq.url, name)) == 2


async def test_what_the_broker_refuses_is_not_confirmed(rabbitmq: RabbitMq) -> None:
    full = await new_queue(rabbitmq.url, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    other = await new_queue(rabbitmq.url)
    async with connected(rabbitmq.url) as connection:
        refused = None
        for _ in range(100):  # the queue's length is known to the broker a little later
            refused = await outcome(connection.publish(full, b"text"))
            if refused is not None:
                break
        assert refused is not None
        assert await outcome(connection.publish(other, b"text")) is None


async def test_wrong_passwords_and_hosts_are_lost_connections(rabbitmq: RabbitMq) -> None:
    for wrong in (rabbitmq.url.replace(rabbitmq.password, "wrong"), f"{rabbitmq.url}nowhere"):
        with pytest.raises(ConnectionError, match=r"403|530"):
            await confirming.connect(wrong, "test", heartbeat_s=3, within_s=10)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    """A RabbitMQ that a test may break."""
    need_servers()
    server = RabbitMq(Path(tmp_path_factory.mktemp("own")))
    server.start()
    yield server
    server.stop()


async def test_a_killed_broker_has_all_that_it_confirmed(own: RabbitMq) -> None:
    name = await new_queue(own.url)
    await asyncio.sleep(3)  # RabbitMQ notes a new queue on disk a little later, and can't recover it before
    told: list[tuple[int, str | None]] = []
    async with connected(own.url) as connection:

        async def publish() -> None:
            for number in itertools.count():
                if connection.lost.is_set():
                    return
                note(told, number, connection.publish(name, b"%d" % number))
                await asyncio.sleep(0.001)

        publishing = asyncio.create_task(publish())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own.kill)
        await asyncio.wait_for(publishing, 20)
        await asyncio.sleep(0)
        assert "lost" in str(await outcome(connection.publish(name, b"late")))
    confirmed = [number for number, doubt in told if doubt is None]
    assert confirmed
    assert sorted(number for number, _ in told) == list(range(len(told)))
    await asyncio.to_thread(own.start)
    there = [int(body) for body, _ in await read_again(own.url, name)]
    assert there == sorted(set(there))
    assert set(confirmed) <= set(there)


async def test_a_blocked_connection_says_so(own: RabbitMq) -> None:
    name = await new_queue(own.url)
    async with connected(own.url) as connection:
        assert await outcome(connection.publish(name, b"before")) is None
        await asyncio.to_thread(own.control, "set_vm_memory_high_watermark", "0.0000001")
        try:
            held = connection.publish(name, b"held")
            await until(lambda: connection.blocked != "")
            assert not connection.takes
            await asyncio.sleep(0.2)
            assert not held.done()
            given_up = connection.publish(name, b"given up")
            connection.give_up(given_up, "too late")
            assert await outcome(given_up) == "too late"
        finally:
            await asyncio.to_thread(own.control, "set_vm_memory_high_watermark", "0.4")
        assert await outcome(held) is None
        assert connection.takes
        assert await outcome(connection.publish(name, b"after")) is None
    assert [body for body, _ in await read(own.url, name)] == [b"before", b"held", b"given up", b"after"]


async def test_a_closed_connection_leaves_nothing_waiting(own: RabbitMq) -> None:
    name = await new_queue(own.url)
    async with connected(own.url) as connection:
        assert await outcome(connection.publish(name, b"text")) is None
        await asyncio.to_thread(own.control, "close_all_connections", "over")
        await asyncio.wait_for(connection.lost.wait(), 20)
        assert "320" in connection.why
        assert "320" in str(await outcome(connection.publish(name, b"late")))


async def test_a_frozen_broker_is_noticed(own: RabbitMq) -> None:
    name = await new_queue(own.url)
    async with connected(own.url, heartbeat_s=1) as connection:
        await asyncio.sleep(3.5)
        assert not connection.lost.is_set(), "heartbeats keep a connection on which nothing is published"
        own.pause()
        try:
            published = connection.publish(name, b"text")
            assert await outcome(published) == "RabbitMQ was silent for 2 s."
        finally:
            own.resume()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


class FakeBroker(asyncio.Protocol):
    """Opens any connection, and then says what a test wants."""

    tune = b"\x00\x00\x00\x00\x10\x00\x00\x00"

    def __init__(self, opened: list[FakeBroker]) -> None:
        self._opened = opened
        self._frames = amqp.Frames(1_000_000)
        self.transport: Any = None
        self.frames: list[amqp.Frame] = []
        self._begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def say(self, number: int, arguments: bytes = b"", channel: int = 1) -> None:
        self.transport.write(amqp.method(channel, number, arguments))

    def confirm(self, tag: int, *, up_to: bool = False, number: int = amqp.ACK) -> None:
        self.say(number, tag.to_bytes(8) + bytes((up_to,)))

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            data = data.removeprefix(amqp.PROTOCOL)
            self.say(amqp.START, b"\x00\x09" + amqp.table({}) + b"\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US", 0)
        answers = {
            amqp.START_OK: (amqp.TUNE, self.tune, 0),
            amqp.OPEN: (amqp.OPEN_OK, b"\x00", 0),
            amqp.CHANNEL_OPEN: (amqp.CHANNEL_OPEN_OK, b"\x00\x00\x00\x00", 1),
            amqp.SELECT: (amqp.SELECT_OK, b"", 1),
            amqp.CLOSE: (amqp.CLOSE_OK, b"", 0),
        }
        for frame in self._frames.feed(data):
            self.frames.append(frame)
            answer = answers.get(amqp.method_of(frame.payload)) if frame.kind == amqp.METHOD else None
            if answer is not None:
                self.say(*answer)
                if answer[0] == amqp.SELECT_OK:
                    self._opened.append(self)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Confirming, FakeBroker]]:
    opened: list[FakeBroker] = []
    server = await asyncio.get_running_loop().create_server(lambda: FakeBroker(opened), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with connected(f"amqp://u:p@127.0.0.1:{port}/") as connection:
        yield connection, opened[0]
    server.close()


Pair = tuple[Confirming, FakeBroker]


async def test_confirms_come_in_any_order_and_for_many_at_once(pair: Pair) -> None:
    connection, fake = pair
    told: list[tuple[int, str | None]] = []
    for tag in range(1, 9):
        note(told, tag, connection.publish("q", b"x"))
    fake.confirm(2)
    fake.confirm(5, up_to=True)
    fake.confirm(7, up_to=True, number=amqp.NACK)
    fake.confirm(7, up_to=True)  # too late: they were refused
    await until(lambda: len(told) == 7)
    assert [tag for tag, _ in told] == [2, 1, 3, 4, 5, 6, 7]
    assert [tag for tag, refused in told if refused is not None] == [6, 7]
    fake.confirm(0, up_to=True)
    fake.confirm(8)
    await until(lambda: len(told) == 8)


async def test_all_messages_of_a_turn_leave_in_one_write(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, fake = pair
    written: list[bytes] = []
    transport = connection._transport

    class Counting:
        def write(self, data: bytes) -> None:
            written.append(data)
            transport.write(data)

    monkeypatch.setattr(connection, "_transport", Counting())
    for _ in range(20):
        connection.publish("q", b"x")
    await until(lambda: sum(frame.kind == amqp.BODY for frame in fake.frames) == 20)
    assert len(written) == 1
    monkeypatch.undo()


async def test_no_frame_is_larger_than_agreed(pair: Pair) -> None:
    connection, fake = pair
    connection.publish("q", bytes(10_000))
    await until(lambda: sum(len(frame.payload) for frame in fake.frames if frame.kind == amqp.BODY) == 10_000)
    assert max(len(frame.payload) for frame in fake.frames if frame.kind == amqp.BODY) + amqp.AROUND == 4096


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x50\x00",  # a frame without an end
        b"\x01\x00\x01\x7f\xff\xff\xff",  # a huge one
        amqp.method(1, amqp.ACK, b"\x00"),  # a short confirm
        amqp.method(1, amqp.ACK, (99).to_bytes(8) + b"\x00"),  # of what was never sent
        amqp.method(1, 0x990099),  # an unknown method
        amqp.frame(7, 1, b""),  # an unknown kind of frame
        amqp.frame(amqp.HEADER, 1, b"\x00\x3c\x00\x00" + bytes(8) + b"\x00\x00"),  # a return of we don't know what
    ],
)
async def test_after_nonsense_everything_is_in_doubt(pair: Pair, nonsense: bytes) -> None:
    connection, fake = pair
    published = connection.publish("q", b"x")
    await until(lambda: bool(fake.frames) and fake.frames[-1].kind == amqp.BODY)
    fake.transport.write(nonsense + amqp.method(1, amqp.ACK, (1).to_bytes(8) + b"\x00"))
    assert "not understood" in str(await outcome(published))
    assert connection.lost.is_set()


class ShortTune(FakeBroker):
    tune = b"\x00"


@pytest.mark.parametrize(("kind", "host"), [(ShortTune, ""), (FakeBroker, "x" * 256)])
async def test_a_broker_or_a_url_that_does_not_fit_is_a_lost_connection(kind: type[FakeBroker], host: str) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: kind([]), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionError, match="do not go together"):
        async with connected(f"amqp://u:p@127.0.0.1:{port}/{host}"):
            pass
    server.close()


async def test_a_return_is_known_whatever_properties_it_has(pair: Pair) -> None:
    connection, fake = pair
    published = [connection.publish("q", b"x") for _ in range(2)]
    fake.say(amqp.RETURN, b"\x01\x38" + amqp.short("NO_ROUTE") + amqp.short("") + amqp.short("q"))
    properties = amqp.short("a/b") + amqp.table({"a": "b"}) + b"\x02\x05" + amqp.short("reply") + amqp.short("2")
    header = b"\x00\x3c\x00\x00" + (1).to_bytes(8) + (0x8000 | 0x2000 | 0x1000 | 0x800 | 0x200 | 0x80).to_bytes(2)
    fake.transport.write(amqp.frame(amqp.HEADER, 1, header + properties) + amqp.frame(amqp.BODY, 1, b"x"))
    fake.confirm(2, up_to=True)
    assert [await outcome(each) for each in published] == [None, "RabbitMQ returned it: 312 NO_ROUTE"]


async def test_a_slow_broker_is_not_written_to_without_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, fake = pair
    fake.transport.pause_reading()
    for _ in range(40):
        connection.publish("q", bytes(1_000_000))
        await asyncio.sleep(0)
        if not connection.takes:
            break
    assert not connection.takes
    fake.transport.resume_reading()
    await until(lambda: connection.takes)
