"""``hubbub serve``: builds and runs the whole service in one process from the settings."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hubbub.chat.commands import EndErasure
from hubbub.chat.erasing import Erasing
from hubbub.chat.errors import Unavailable
from hubbub.chat.feed import Feed
from hubbub.chat.operators import Operators
from hubbub.embedded.at_once import FromMemory
from hubbub.embedded.data_folder import ACCOUNTS, REBUILD, DataFolder
from hubbub.embedded.index import SqliteIndex
from hubbub.embedded.indexer import Indexer
from hubbub.embedded.intake import DirectIntake
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.embedded.writer import Writer
from hubbub.http.edge import Edge
from hubbub.http.limits import LocalGate, MemoryCounts
from hubbub.http.mail import Mail
from hubbub.http.metrics import Reading, accepted, cached, lag, waiting, writing
from hubbub.http.operator import NoLetters
from hubbub.http.passwords import Argon2Passwords
from hubbub.http.service import Adapters, edge_of, now
from hubbub.loop_lag import LoopLag
from hubbub.measures import Histogram
from hubbub.settings import Settings
from hubbub.tracing import tracing_to


def setup_code(settings: Settings, folder: DataFolder) -> str | None:
    """The code of a new link that creates an operator's account; None if there is an operator already. Blocks."""
    store = SqliteStore(folder.database)
    try:
        operators = Operators(store, settings.operators)
        return None if asyncio.run(operators.all()) else operators.invite("", now())
    finally:
        store.close()


@asynccontextmanager
async def serving(settings: Settings, folder: DataFolder) -> AsyncIterator[Edge]:
    """Run the service in this process. Leaving the context finishes the accepted commands."""
    store = SqliteStore(folder.database)
    store.forget_sessions(now())
    store.forget_links(now())
    index = SqliteIndex(folder.path, folder.data_set)
    indexer = Indexer(store, index)
    writer = Writer(store)
    tracing = writer.tracing = tracing_to(settings.trace_url, "serve")
    queue = EmbeddedQueue(writer, max_commands=settings.queue_commands)
    passwords = Argon2Passwords()
    feed = Feed()
    cache = MemoryCache(store, feed)
    loop = LoopLag()

    async def index_lag() -> list[Reading]:
        """The lag of the index; empty while the database or the index can't be read."""
        file = index.current
        with suppress(Unavailable, sqlite3.Error):
            behind = await asyncio.to_thread(store.index_lag, file.position if file else 0)
            since = await asyncio.to_thread(file.waiting_since) if file else None
            return [lag(behind if since is None else max(behind, (now() - since) / 1000))]
        return []

    async def readings() -> list[Reading | Histogram]:
        return [
            accepted(queue.accepted),
            waiting(queue.depth),
            *writing(writer.measures),
            *await index_lag(),
            *cached(cache.hits, cache.misses),
            loop.lags,
        ]

    async def settled() -> None:
        """Wait until all posts that a deleted account had in progress are stored: the queue stores in order, so a
        command behind them is stored after them."""
        await intake.accept(EndErasure(()))

    gate = LocalGate(settings.user_rate)

    def accounts_changed() -> None:
        """Another process changed accounts, see embedded.users."""
        gate.forget()
        cache.names_changed()

    intake = DirectIntake(queue, store, cache, now)
    adapters = Adapters(
        store=store,
        intake=intake,
        view=cache,
        at_once=FromMemory(cache, intake, gate),
        index=index,
        gate=gate,
        counts=MemoryCounts(),
        passwords=passwords,
        feed=feed,
        letters=NoLetters(),
        secret=folder.secret,
        faults=lambda: {"queue": queue.fault, "store": store.fault, "search": index.fault or indexer.fault},
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
    sweeping = asyncio.create_task(edge.sweep())
    erasing = asyncio.create_task(Erasing(store, intake, settled).run())
    watching = [
        asyncio.create_task(folder.when_asked(REBUILD, indexer.rebuild)),
        asyncio.create_task(folder.when_asked(ACCOUNTS, accounts_changed)),
    ]
    try:
        with loop.watched():
            yield edge
    finally:
        for task in (sweeping, erasing, *watching):
            task.cancel()
        if mail is not None:
            await mail.close()
        await queue.close()
        await asyncio.to_thread(indexer.close)
        passwords.close()
        index.close()
        store.close()
        if tracing is not None:
            tracing.close()
