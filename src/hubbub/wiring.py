"""Settings in, a running system out. The only file that knows every adapter."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from hubbub.caches.memory import MemoryCache
from hubbub.chat.accounts import Accounts, normalized_email
from hubbub.chat.applications import Applications
from hubbub.chat.chats import Chats
from hubbub.chat.errors import ChatError, Unavailable
from hubbub.chat.feed import Feed
from hubbub.chat.intake import DirectIntake
from hubbub.chat.model import ChatKey, User
from hubbub.chat.ports import Gate, Intake, Logins, Passwords, SearchIndex, Store, View
from hubbub.chat.search import Query
from hubbub.console import Console
from hubbub.data_folder import REBUILD, DataFolder
from hubbub.http.api import Api
from hubbub.http.connection import Edge
from hubbub.http.hot import HotRoutes
from hubbub.http.limits import LocalGate, LoginLimit
from hubbub.http.metrics import Reading, serve_metrics, writing
from hubbub.http.operator import Letters, NoLetters, OperatorPage, RecentErrors
from hubbub.http.passwords import Argon2Passwords
from hubbub.http.routing import application
from hubbub.http.schemas import Letter
from hubbub.http.sessions import Sessions
from hubbub.measures import Histogram
from hubbub.queues.embedded import EmbeddedQueue
from hubbub.search.sqlite import SqliteIndex
from hubbub.settings import Settings
from hubbub.stores.sqlite import SqliteStore
from hubbub.tracing import Tracing
from hubbub.writer.indexer import Indexer
from hubbub.writer.writer import Writer

if TYPE_CHECKING:
    from hubbub.queues.dead_letters import DeadLetters
    from hubbub.stores.mysql import MySqlStore

_SHARED_S = 15.0  # how long a process of the cluster waits for its servers when it starts


class ShardsFixed(Exception):
    """The number of shards can't be changed now."""


class NoIndex:
    """A cluster without a search server."""

    async def candidates(self, chat: ChatKey, query: Query, *, typos: bool) -> list[int]:
        raise Unavailable("This Hubbub has no search server.", retry_after=60)


def _waiting(commands: int) -> Reading:
    return Reading("hubbub_queue_waiting_commands", "Writes accepted whose outcome is not known yet.", commands)


def _accepted(commands: int) -> Reading:
    return Reading("hubbub_writes_accepted", "Commands taken into the queue.", commands, counter=True)


def _serving(edge: Edge, feed: Feed) -> list[Reading | Histogram]:
    return [
        edge.requests,
        Reading("hubbub_connections", "Connections of clients.", len(edge.connections)),
        Reading("hubbub_listeners", "Clients that a chat is streamed to.", feed.listening),
    ]


def _lag(seconds: float) -> Reading:
    return Reading("hubbub_index_lag_seconds", "For how long the oldest change has waited for the index.", seconds)


def _cached(hits: int, misses: int) -> list[Reading]:
    what = "Lists of newest messages that the cache {}."
    return [
        Reading("hubbub_cache_hits", what.format("had"), hits, counter=True),
        Reading("hubbub_cache_misses", what.format("had not"), misses, counter=True),
    ]


def _tracing(settings: Settings, part: str) -> Tracing | None:
    return Tracing(settings.trace_url, part) if settings.trace_url else None


def _now() -> int:
    return time.time_ns() // 1_000_000


def _edge(
    store: Store,
    intake: Intake,
    view: View,
    index: SearchIndex,
    gate: Gate,
    logins: Logins,
    passwords: Passwords,
    secret: bytes,
    proxies: Sequence[str],
    faults: Callable[[], dict[str, str | None]],
    readings: Callable[[], Awaitable[list[Reading | Histogram]]],
    feed: Feed,
    letters: Letters,
    operators: Sequence[str],
    tracing: Tracing | None,
) -> Edge:
    accounts = Accounts(store, intake, passwords, _now)
    applications = Applications(store, intake, view, _now)
    chats = Chats(applications, store, intake, view, index, _now)
    sessions = Sessions(accounts, secret, gate)
    hot = HotRoutes(sessions, chats)

    async def ready() -> dict[str, str | None]:
        try:
            await store.application("")
            unreadable = None
        except ChatError as error:
            unreadable = error.sentence
        return {**faults(), "store": unreadable}

    errors = RecentErrors()
    logging.getLogger("hubbub").addHandler(errors)
    emails = {normalized_email(email) for email in operators}

    def is_operator(user: User) -> bool:
        return user.email in emails if emails else user.id == 1

    operator = OperatorPage(sessions, is_operator, readings, letters, errors).routes()
    api = Api(accounts, applications, chats, sessions, hot, logins, ready, readings, feed, is_operator, operator)
    app: Any = application([*api.routes(), *operator, *Console().routes()])
    if proxies:
        app = ProxyHeadersMiddleware(app, trusted_hosts=list(proxies))
    edge = Edge(hot, app, tracing)
    edge.tick()
    return edge


@asynccontextmanager
async def embedded(settings: Settings, folder: DataFolder) -> AsyncIterator[Edge]:
    """Everything in this process. Leaving it finishes what was accepted."""
    store = SqliteStore(folder.database)
    store.forget_expired_sessions(_now())
    index = SqliteIndex(folder.path)
    indexer = Indexer(store, index)
    writer = Writer(store)
    tracing = writer.tracing = _tracing(settings, "serve")
    queue = EmbeddedQueue(writer, max_commands=settings.queue_commands)
    passwords = Argon2Passwords()
    feed = Feed()
    cache = MemoryCache(store, feed)
    intake = DirectIntake(queue, store, cache, _now)
    gate = LocalGate(settings.user_rate)

    async def readings() -> list[Reading | Histogram]:
        position = index.current.position if index.current else 0
        lag = await asyncio.to_thread(store.index_lag, position)
        return [
            *_serving(edge, feed),
            _accepted(queue.accepted),
            _waiting(queue.depth),
            *writing(writer.measures),
            _lag(lag),
            *_cached(cache.hits, cache.misses),
        ]

    edge = _edge(
        store,
        intake,
        cache,
        index,
        gate,
        LoginLimit(),
        passwords,
        folder.secret,
        settings.proxies,
        lambda: {"queue": queue.fault},
        readings,
        feed,
        NoLetters(),
        settings.operators,
        tracing,
    )
    sweeping = asyncio.create_task(edge.sweep())
    watching = asyncio.create_task(folder.when_asked(REBUILD, indexer.rebuild))
    try:
        yield edge
    finally:
        sweeping.cancel()
        watching.cancel()
        await queue.close()
        await asyncio.to_thread(indexer.close)
        passwords.close()
        index.close()
        store.close()
        if tracing is not None:
            tracing.close()


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[Edge]:
    """One of a cluster's API processes. Leaving it finishes what was accepted."""
    from hubbub.caches.redis import SCRIPTS, RedisCache
    from hubbub.caches.redis_feed import RedisFeed
    from hubbub.caches.redis_logins import RedisLogins
    from hubbub.caches.redis_wire import RedisWire
    from hubbub.chat.queued_intake import QueuedIntake
    from hubbub.queues.rabbitmq import DEAD, RabbitQueue
    from hubbub.search.elastic import ElasticIndex, connect
    from hubbub.stores.mysql import MySqlStore

    store = MySqlStore(settings.mysql_url, settings.mysql_replicas, pool_size=settings.mysql_pool)
    secret = store.kept("session secret", secrets.token_hex(32)).encode()
    shards = _shards(store, settings)
    queue = RabbitQueue(settings.amqp_url, shards, max_commands=settings.queue_commands)
    wire = RedisWire(settings.redis_url, SCRIPTS)
    feed = RedisFeed(settings.redis_url)
    tracing = _tracing(settings, "api")
    passwords = Argon2Passwords()
    logins = RedisLogins(wire, LoginLimit())
    cache = RedisCache(wire, store, queue.accept, user_rate=settings.user_rate, alone=LocalGate(settings.user_rate))
    intake = QueuedIntake(queue, store, cache, _now)

    async def readings() -> list[Reading | Histogram]:
        backlog = await queue.backlog()
        waiting = [
            Reading("hubbub_queue_depth_messages", "Deliveries in a shard's queue.", depth, {"queue": name})
            for name, depth in backlog.items()
            if name != DEAD
        ]
        dead = [Reading("hubbub_dead_letters", "Commands that wait to be looked at.", backlog.get(DEAD, 0))]
        used = Reading("hubbub_database_connections", "In use, of this process's pool.", store.connections)
        lag = [_lag(await store.index_lag())] if settings.search_url else []
        return [
            *_serving(edge, feed.feed),
            _accepted(queue.accepted),
            _waiting(queue.depth),
            *waiting,
            *dead,
            used,
            *lag,
            *_cached(cache.hits, cache.misses),
        ]

    edge = _edge(
        store,
        intake,
        cache,
        ElasticIndex(connect(settings.search_url)) if settings.search_url else NoIndex(),
        cache,
        logins,
        passwords,
        secret,
        settings.proxies,
        lambda: {"queue": queue.fault, "cache": wire.fault},
        readings,
        feed.feed,
        BrokerLetters(settings.amqp_url, shards),
        settings.operators,
        tracing,
    )
    sweeping = asyncio.create_task(edge.sweep())
    name = secrets.token_hex(8)
    living = asyncio.create_task(_live(store, name))
    await asyncio.gather(queue.connected(_SHARED_S), wire.connected(_SHARED_S))
    try:
        yield edge
    finally:
        sweeping.cancel()
        living.cancel()
        await intake.close()
        await queue.close()
        await wire.close()
        await feed.close()
        passwords.close()
        with suppress(ChatError):
            await asyncio.to_thread(store.gone, "api", name)
        store.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


def _shards(store: MySqlStore, settings: Settings) -> int:
    """The number of shards that the cluster keeps: the first process's setting, until it is raised."""
    return int(store.kept("shards", str(settings.shards)))


async def _live(store: MySqlStore, name: str) -> None:
    """Keep saying that this API process is alive."""
    while True:
        with suppress(ChatError):  # a database that is away is reported by whoever needs it
            await asyncio.to_thread(store.alive, "api", name)
        await asyncio.sleep(5)


async def writer(settings: Settings, stopped: asyncio.Event, started: Callable[[], None]) -> None:
    """One of a cluster's writers, until ``stopped``; what it has begun is finished."""
    from hubbub.caches.redis import SCRIPTS, RedisCache
    from hubbub.caches.redis_wire import RedisWire
    from hubbub.queues.rabbitmq_consumer import RabbitConsumer
    from hubbub.search.elastic import ElasticIndex, connect
    from hubbub.stores.mysql import MySqlStore
    from hubbub.writer.indexer import keep_index
    from hubbub.writer.shard import ShardWriter, keep_house

    searched = bool(settings.search_url)
    store = MySqlStore(settings.mysql_url, pool_size=settings.mysql_pool, note_changes=searched)
    wire = RedisWire(settings.redis_url, SCRIPTS)
    keeping = [asyncio.create_task(keep_house(store, _now))]
    if searched:
        keeping.append(asyncio.create_task(keep_index(store, ElasticIndex(connect(settings.search_url)).add)))
    shard_writer = ShardWriter(store, RedisCache(wire, store))
    tracing = shard_writer.tracing = _tracing(settings, "writer")
    stop_metrics: Callable[[], None] | None = None
    if settings.metrics_port:

        def own() -> list[Reading | Histogram]:
            used = Reading("hubbub_database_connections", "In use, of this process's pool.", store.connections)
            return [*writing(shard_writer.measures), used]

        stop_metrics = serve_metrics(settings.host, settings.metrics_port, own)
    name = secrets.token_hex(8)
    while not stopped.is_set():
        shards = await asyncio.to_thread(_shards, store, settings)
        raised = asyncio.Event()

        async def alive(shards: int = shards, raised: asyncio.Event = raised) -> int:
            if await asyncio.to_thread(_shards, store, settings) != shards:
                raised.set()
            return await asyncio.to_thread(store.alive, "writer", name)

        consumer = RabbitConsumer(settings.amqp_url, shards, shard_writer, alive)
        running = asyncio.create_task(consumer.run(started))
        ends = [asyncio.create_task(event.wait()) for event in (stopped, raised)]
        await asyncio.wait([running, *ends], return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        consumer.stop()
        await running
    if stop_metrics is not None:
        stop_metrics()
    for task in keeping:
        task.cancel()
    await asyncio.gather(*keeping, return_exceptions=True)
    with suppress(ChatError):  # else it will be missed soon enough
        await asyncio.to_thread(store.gone, "writer", name)
    await wire.close()
    store.close()
    if tracing is not None:
        tracing.close()


class BrokerLetters:
    """See http.operator.Letters."""

    def __init__(self, url: str, shards: int) -> None:
        self._url = url
        self._shards = shards

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[DeadLetters]:
        from hubbub.queues.dead_letters import DeadLetters
        from hubbub.queues.rabbitmq import LOST

        try:
            async with DeadLetters.open(self._url, self._shards) as letters:
                yield letters
        except LOST as error:
            raise Unavailable("RabbitMQ can't be reached.") from error

    async def shown(self) -> list[Letter]:
        async with self._open() as letters:
            return [
                Letter(each.number, each.at, type(each.command).__name__ if each.command else "unreadable", each.reason)
                for each in await letters.list()
            ]

    async def retry(self, number: int) -> bool:
        async with self._open() as letters:
            return await letters.retry(lambda each: each == number) > 0


@asynccontextmanager
async def dead_letters(settings: Settings) -> AsyncIterator[DeadLetters]:
    """What a cluster's writers could not store."""
    from hubbub.queues.dead_letters import DeadLetters
    from hubbub.stores.mysql import MySqlStore

    store = MySqlStore(settings.mysql_url, pool_size=1)
    shards = _shards(store, settings)
    store.close()
    async with DeadLetters.open(settings.amqp_url, shards) as letters:
        yield letters


def rebuild_search(settings: Settings, progress: Callable[[int], None]) -> int:
    """Make a cluster's search index anew while it serves; returns how many messages are in it. Raises Unavailable."""
    from hubbub.search.elastic import ElasticIndex, connect
    from hubbub.stores.mysql import MySqlStore

    store = MySqlStore(settings.mysql_url, pool_size=2)
    index = ElasticIndex(connect(settings.search_url))
    count, place = 0, ("", 0, 0)
    try:
        # From here on the writers' changes go into the new index as well, so what is read below misses none.
        index.start_anew()
        while documents := store.all_messages(place):
            index.fill(documents)
            count += len(documents)
            place = (*documents[-1].chat, documents[-1].number)
            progress(count)
        index.adopt()
    finally:
        store.close()
    return count


async def raise_shards(settings: Settings, wanted: int | None, *, within_s: float = 30.0) -> int:
    """The number of shards, raised first if ``wanted``.

    Raises:
        ShardsFixed: it can't be changed now; the text says what stands in the way.
    """
    from hubbub.queues.rabbitmq import send_markers
    from hubbub.stores.mysql import MySqlStore

    store = MySqlStore(settings.mysql_url, pool_size=1)
    try:
        shards = _shards(store, settings)
        if wanted is None:
            return shards
        # A token's commands must all be in one queue: none may be left in the old one when the first enters the new.
        if wanted < shards:
            raise ShardsFixed(f"There are {shards} shards; their number can be raised, not lowered.")
        if processes := store.alive("api"):
            raise ShardsFixed(f"{processes} API processes are running. Stop them first; let the writers run.")
        publisher = f"shards.{secrets.token_hex(8)}"
        await send_markers(settings.amqp_url, shards, publisher)
        until = time.monotonic() + within_s
        while (behind := shards - store.reached(publisher)) > 0:
            if time.monotonic() > until:
                raise ShardsFixed(f"{behind} shards still hold messages. Let the writers finish them first.")
            await asyncio.sleep(0.1)
        store.keep("shards", str(wanted))
        return wanted
    finally:
        store.close()
