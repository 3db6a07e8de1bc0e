"""``hubbub api`` and ``hubbub writer``: builds and runs one process of a cluster from the settings."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

from sqlalchemy.exc import DBAPIError

from hubbub.chat.erasing import Erasing as UserErasing
from hubbub.chat.errors import ChatError, Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Candidates
from hubbub.chat.search import CANDIDATES, Query
from hubbub.cluster import drains, generations
from hubbub.cluster.broker import LOST, send_markers
from hubbub.cluster.consumer import RabbitConsumer
from hubbub.cluster.database import Database
from hubbub.cluster.dead_letters import DeadLetters
from hubbub.cluster.deliveries import Deliveries
from hubbub.cluster.erasing import Erasing, keep_erasing
from hubbub.cluster.generations import Generations, beating
from hubbub.cluster.housekeeping import keep_house
from hubbub.cluster.indexer import keep_index
from hubbub.cluster.intake import QueuedIntake
from hubbub.cluster.migrate import migrate
from hubbub.cluster.one_trip import RedisTrip
from hubbub.cluster.outbox import Outbox
from hubbub.cluster.processes import SESSION_KEY, Processes
from hubbub.cluster.protocol import kind_of
from hubbub.cluster.publisher import Publisher
from hubbub.cluster.redis.counts import RedisCounts
from hubbub.cluster.redis.feed import RedisFeed
from hubbub.cluster.redis.gate import RedisGate
from hubbub.cluster.redis.messages import RedisView
from hubbub.cluster.redis.numbers import Numbers
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.redis.stored import Stored
from hubbub.cluster.search import ElasticIndex, connect
from hubbub.cluster.sequence_gaps import SequenceGaps
from hubbub.cluster.store import MySqlStore
from hubbub.cluster.tasks import keep
from hubbub.cluster.writer import ShardWriter
from hubbub.http.edge import Edge
from hubbub.http.limits import LocalGate, MemoryCounts
from hubbub.http.mail import Mail
from hubbub.http.metrics import Reading, accepted, cached, lag, serve_metrics, waiting, writing
from hubbub.http.passwords import Argon2Passwords
from hubbub.http.schemas import Letter
from hubbub.http.server import PortTaken
from hubbub.http.service import Adapters, edge_of, now
from hubbub.http.shortcuts import TripShortcuts
from hubbub.loop_lag import LoopLag
from hubbub.measures import Histogram
from hubbub.settings import Settings
from hubbub.tracing import tracing_to

log = logging.getLogger("hubbub")

_SHARED_S = 15.0  # how long a process of the cluster waits for its servers when it starts
_PAGE = 10  # the default limit of a list


class ShardsFixed(Exception):
    """The number of shards can't be changed now."""


class NoIndex:
    """The index of a cluster without a search server: every search raises Unavailable."""

    async def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Candidates:
        raise Unavailable("This service has no search server.", retry_after=60)


def database_of(settings: Settings, *, pool_size: int | None = None, replicas: bool = False) -> Database:
    """Connect to the database and bring its schema up to this version.

    Raises:
        SchemaTooNew: a newer version wrote the schema.
        Unavailable: the database can't be reached.
    """
    database = Database(
        settings.mysql_url, settings.mysql_replicas if replicas else (), pool_size=pool_size or settings.mysql_pool
    )
    try:
        migrate(database.engine)
    except DBAPIError as error:
        database.close()
        raise Unavailable(f"The database can't be used: {error.orig}.", retry_after=5) from error
    return database


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Edge]:
    """Run one of a cluster's API processes. Leaving the context finishes the accepted commands."""
    database = database_of(settings, replicas=True)
    store, processes, outbox, dead_letters = (
        MySqlStore(database),
        Processes(database),
        Outbox(database),
        DeadLetters(database),
    )
    processes.redis_servers(len(settings.redis_urls))
    secret = processes.kept(SESSION_KEY, secrets.token_hex(32)).encode()
    name = secrets.token_hex(8)
    publisher = Publisher(settings.amqp_url, processes.shards(settings.shards), max_commands=settings.queue_commands)
    servers = Servers(settings.redis_urls)
    feed = RedisFeed(settings.redis_urls, servers)
    tracing = tracing_to(settings.trace_url, "api")
    passwords = Argon2Passwords()
    applications, pages = Applications(), Pages(_PAGE)
    loop = LoopLag()
    numbers = Numbers(servers, store, publisher, pages)
    beats = beating(settings.mysql_url)
    living = Generations(Processes(beats), servers, name, feed.feed.missed)
    intake = QueuedIntake(publisher, store, numbers, servers, living, now)
    view = RedisView(servers, store, numbers, publisher, applications, pages, living)
    alone = LocalGate(settings.user_rate)
    gate = RedisGate(servers, publisher, applications, pages, user_rate=settings.user_rate, alone=alone)

    async def readings() -> list[Reading | Histogram]:
        depths = [
            Reading("hubbub_queue_depth_messages", "Deliveries in a shard's queue.", depth, {"queue": queue})
            for queue, depth in (await publisher.backlog()).items()
        ]
        return [
            accepted(publisher.accepted),
            waiting(publisher.depth),
            *depths,
            *await _from_database(dead_letters),
            Reading("hubbub_database_connections", "In use, of this process's pool.", database.connections),
            *([lag(await outbox.index_lag())] if settings.search_url else []),
            *cached(pages.hits, pages.misses),
            loop.lags,
        ]

    adapters = Adapters(
        store=store,
        intake=intake,
        view=view,
        shortcuts=lambda sessions: TripShortcuts(sessions, RedisTrip(gate, view, intake)),
        index=ElasticIndex(connect(settings.search_url)) if settings.search_url else NoIndex(),
        gate=gate,
        counts=RedisCounts(servers, MemoryCounts()),
        passwords=passwords,
        feed=feed.feed,
        letters=Letters(dead_letters, settings.amqp_url, publisher.shards),
        secret=secret,
        faults=lambda: {"queue": publisher.fault, "cache": servers.fault},
        readings=readings,
    )
    mail = Mail(settings.smtp_url, settings.mail_from) if settings.smtp_url else None
    edge = edge_of(
        adapters,
        proxies=settings.proxies,
        address_connections=settings.address_connections,
        operators=settings.operators,
        registration=settings.registration,
        public_url=settings.public_url,
        mail=mail,
        user_streams=settings.user_streams,
        hourly=settings.hourly,
        tracing=tracing,
    )

    async def settled() -> None:
        marker = f"erase.{secrets.token_hex(8)}"
        try:
            await send_markers(settings.amqp_url, publisher.shards, marker)
        except LOST as error:
            raise Unavailable("RabbitMQ can't be reached.") from error
        while await asyncio.to_thread(processes.reached, marker) < publisher.shards:  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.5)

    going = [
        keep(edge.sweep(), "the connections' clock"),
        keep(drains.watch(servers, publisher), "the drained queues"),
    ]
    erasing = keep(UserErasing(store, intake, settled).run(), "erasing messages")
    await asyncio.gather(publisher.connected(_SHARED_S), servers.in_use(_SHARED_S))  # else the first posts get a 503
    try:
        with loop.watched():
            yield edge
    finally:
        erasing.cancel()
        await asyncio.gather(erasing, return_exceptions=True)
        if mail is not None:
            await mail.close()
        await intake.close()
        await publisher.close()
        await intake.close()  # answers the commands that were confirmed last
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await living.close()
        await servers.close()
        await feed.close()
        passwords.close()
        with suppress(ChatError):
            await asyncio.to_thread(processes.gone, "api", name)
        beats.close()
        database.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


async def _from_database(dead_letters: DeadLetters) -> list[Reading]:
    """The readings that come from the database; empty while it can't be reached."""
    try:
        counts = await asyncio.to_thread(dead_letters.counts)
    except ChatError:
        return []
    what = "Commands that were set aside and wait for an operator."
    return [
        Reading("hubbub_dead_letters", what, counts[True], {"acknowledged": "true"}),
        Reading("hubbub_dead_letters", what, counts[False], {"acknowledged": "false"}),
    ]


async def writing_until(settings: Settings, stopped: asyncio.Event, started: Callable[[], None]) -> None:
    """Run one of a cluster's writers until ``stopped`` is set; the batches it has begun are finished."""
    searched = bool(settings.search_url)
    database = database_of(settings)
    store, processes, dead_letters = MySqlStore(database), Processes(database), DeadLetters(database)
    deliveries = Deliveries(database, store.uncounted, note_changes=searched)
    servers = Servers(settings.redis_urls)
    shards = await asyncio.to_thread(processes.shards, settings.shards)
    loop, watching = LoopLag(), ExitStack()
    watching.enter_context(loop.watched())
    going = [
        keep(keep_house(store, processes, settings.amqp_url, shards, now), "the housekeeping"),
        keep(generations.follow(processes, servers.clients), "the generations of Redis"),
    ]
    stored = Stored(servers, store)
    going.append(keep(keep_erasing(Erasing(database, note_changes=searched), stored), "erasing what was deleted"))
    if searched:
        index = ElasticIndex(connect(settings.search_url))
        going.append(keep(keep_index(Outbox(database), index.add), "the search index"))
    writer = ShardWriter(deliveries, stored, shards)
    going.append(keep(writer.tell_again(), "informing Redis again"))
    tracing = writer.tracing = tracing_to(settings.trace_url, "writer")
    if taken := await dead_letters.take_over(settings.amqp_url):
        log.warning("%d dead letters of an earlier version are set aside.", taken)
    consumer: RabbitConsumer | None = None
    stop_metrics: Callable[[], None] | None = None
    if settings.metrics_port:

        def own() -> list[Reading | Histogram]:
            return [
                *writing(writer.measures),
                loop.lags,
                Reading("hubbub_database_connections", "In use, of this process's pool.", database.connections),
                Reading(
                    "hubbub_stopped_shards",
                    "Shards that lack an acknowledged delivery and wait for an operator.",
                    0 if consumer is None else len(consumer.stopped_shards),
                ),
            ]

        try:
            stop_metrics = serve_metrics(settings.host, settings.metrics_port, own)
        except OSError as error:
            where = f"{settings.host} port {settings.metrics_port}"
            raise PortTaken(
                f"Can't listen on {where}: {error.strerror}. Choose others with --host and --metrics-port."
            ) from error
    name = secrets.token_hex(8)
    while not stopped.is_set():
        writer.shards = await asyncio.to_thread(processes.shards, settings.shards)
        raised = asyncio.Event()

        async def heartbeat(raised: asyncio.Event = raised) -> int:
            if await asyncio.to_thread(processes.shards, settings.shards) != writer.shards:
                raised.set()
            return await asyncio.to_thread(processes.heartbeat, "writer", name)

        consumer = RabbitConsumer(
            settings.amqp_url,
            writer.shards,
            writer,
            heartbeat=heartbeat,
            decide=SequenceGaps(database).decide,
            unreadable=dead_letters.keep,
        )
        running = keep(consumer.run(started), "reading the queues")
        ends = [asyncio.create_task(event.wait()) for event in (stopped, raised)]
        await asyncio.wait([running, *ends], return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        consumer.stop()
        await running
    watching.close()
    if stop_metrics is not None:
        stop_metrics()
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
    with suppress(ChatError):  # otherwise its missing heartbeat shows that it is gone
        await asyncio.to_thread(processes.gone, "writer", name)
    await servers.close()
    database.close()
    if tracing is not None:
        tracing.close()


class Letters:
    """See http.operator.Letters."""

    def __init__(self, dead_letters: DeadLetters, url: str, shards: int) -> None:
        self._dead_letters = dead_letters
        self._url = url
        self._shards = shards

    async def shown(self) -> list[Letter]:
        return [
            Letter(each.number, each.at, kind_of(each.command) if each.command else "unreadable", each.reason)
            for each in await asyncio.to_thread(self._dead_letters.list)
        ]

    async def retry(self, number: int) -> bool:
        try:
            return await self._dead_letters.retry(self._url, self._shards, lambda each: each == number) > 0
        except LOST as error:
            raise Unavailable("RabbitMQ can't be reached.") from error


def rebuild_search(settings: Settings, progress: Callable[[int], None]) -> int:
    """Rebuild a cluster's search index while it serves. Returns the number of messages in it. Raises Unavailable."""
    database = database_of(settings, pool_size=2)
    outbox = Outbox(database)
    index = ElasticIndex(connect(settings.search_url))
    count, place = 0, ("", 0, 0)
    try:
        # From here on the writers' changes go into the new index as well, so the reads below miss none.
        index.start_anew()
        while documents := outbox.all_messages(place):
            index.fill(documents)
            count += len(documents)
            place = (*documents[-1].chat, documents[-1].number)
            progress(count)
        index.adopt()
    finally:
        database.close()
    return count


async def raise_shards(settings: Settings, wanted: int | None, *, within_s: float = 30.0) -> int:
    """Raise the number of shards to ``wanted``, if that is given. Returns the number of shards.

    Raises:
        ShardsFixed: the number can't be changed now; the text says why.
    """
    database = database_of(settings, pool_size=1)
    processes = Processes(database)
    try:
        shards = processes.shards(settings.shards)
        if wanted is None:
            return shards
        # A token's commands must all be in one queue: none may be left in the old queue when the first enters the new.
        if wanted < shards:
            raise ShardsFixed(f"There are {shards} shards; their number can be raised, not lowered.")
        if running := processes.heartbeat("api"):
            raise ShardsFixed(f"{running} API processes are running. Stop them first; let the writers run.")
        publisher = f"shards.{secrets.token_hex(8)}"
        await send_markers(settings.amqp_url, shards, publisher)
        until = time.monotonic() + within_s
        while (behind := shards - processes.reached(publisher)) > 0:
            if time.monotonic() > until:
                raise ShardsFixed(f"{behind} shards still hold messages. Let the writers finish them first.")
            await asyncio.sleep(0.1)
        processes.keep("shards", str(wanted))
        return wanted
    finally:
        database.close()


def open_dead_letters(settings: Settings) -> tuple[DeadLetters, str, int]:
    """The dead letters, the URL of RabbitMQ, through which they are sent again, and the number of shards. Raises
    Unavailable."""
    database = database_of(settings, pool_size=1)
    return DeadLetters(database), settings.amqp_url, Processes(database).shards(settings.shards)


def stopped_shards(settings: Settings, *, accept_loss: bool) -> list[str]:
    """One line for each stopped shard; with ``accept_loss`` these shards continue without the missing deliveries.
    Raises Unavailable."""
    database = database_of(settings, pool_size=1)
    try:
        gaps = SequenceGaps(database)
        said = "continues without" if accept_loss else "has stopped, because it lacks"
        lines = [
            f"shard {gap.shard} {said} {gap.found - gap.expected} deliveries of publisher {gap.publisher},"
            f" from {gap.expected} on, which were confirmed"
            for gap in gaps.stopped()
        ]
        if accept_loss:
            gaps.accept()
        return lines
    finally:
        database.close()
