"""``hubbub serve``: builds and runs the whole service on one machine from the settings."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from hubbub.chat.commands import EndErasure
from hubbub.chat.erasing import Erasing
from hubbub.chat.feed import Feed
from hubbub.chat.operators import Operators
from hubbub.embedded.at_once import FromMemory
from hubbub.embedded.child import Child
from hubbub.embedded.committer import commit
from hubbub.embedded.data_folder import ACCOUNTS, REBUILD, DataFolder
from hubbub.embedded.intake import DirectIntake
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.search_process import SearchProcess, search
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.http.edge import Edge
from hubbub.http.limits import LocalGate, MemoryCounts
from hubbub.http.mail import Mail
from hubbub.http.metrics import Reading, accepted, cached, lag, part, waiting, writing
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


class Parts(NamedTuple):
    """The processes beside the one that serves."""

    committing: Child
    searching: Child


def start_parts(folder: DataFolder) -> Parts:
    """Fork the processes. Call it early: they share the memory that this process has by then."""
    committing = Child.start("commit", lambda channel: commit(channel, folder.database))

    def searching(channel: socket.socket) -> None:
        committing.channel.close()  # or the other process would not see that the one that serves has gone
        search([channel], folder.path, folder.data_set)

    return Parts(committing, Child.start("search", searching))


@asynccontextmanager
async def serving(settings: Settings, folder: DataFolder, parts: Parts) -> AsyncIterator[Edge]:
    """Run the service in this process and its parts. Leaving the context finishes the accepted commands."""
    tracing = tracing_to(settings.trace_url, "serve")
    queue = EmbeddedQueue(max_commands=settings.queue_commands, tracing=tracing)
    loop = asyncio.get_running_loop()

    def unsound(fault: str) -> None:
        """May be called on any thread."""
        loop.call_soon_threadsafe(queue.unsound, fault)

    store = SqliteStore(folder.database, unsound)
    store.forget_sessions(now())
    store.forget_links(now())
    for each in parts:
        each.begin()
    await queue.connect(parts.committing.channel)
    index = SearchProcess(queue.indexed, queue.unsound)
    await index.connect(parts.searching.channel)
    passwords = Argon2Passwords()
    feed = Feed()
    cache = MemoryCache(store, feed)
    loop_lag = LoopLag()

    async def readings() -> list[Reading | Histogram]:
        return [
            accepted(queue.accepted),
            waiting(queue.depth),
            *writing(queue.measures),
            *[lag(seconds) for seconds in [await index.lag()] if seconds is not None],
            *cached(cache.hits, cache.misses),
            loop_lag.lags,
            *(reading for each in parts for reading in part(each.name, each.pid)),
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
        faults=lambda: {"queue": queue.fault, "store": queue.store_fault or store.fault, "search": index.fault},
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
        asyncio.create_task(folder.when_asked(REBUILD, index.rebuild)),
        asyncio.create_task(folder.when_asked(ACCOUNTS, accounts_changed)),
    ]
    try:
        with loop_lag.watched():
            yield edge
    finally:
        for task in (sweeping, erasing, *watching):
            task.cancel()
        if mail is not None:
            await mail.close()
        await queue.close()
        await index.close()
        for each in parts:
            await each.ended()
        passwords.close()
        store.close()
        if tracing is not None:
            tracing.close()
