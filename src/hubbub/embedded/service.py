"""``hubbub serve``: builds and runs the whole service on one machine from the settings.

Several processes may serve, see embedded.processes. What there may be only one of is in the first: the counts against
limits, the figures of all, the erasing of messages, and the requests that other programs leave in the folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from hubbub.chat.commands import EndErasure
from hubbub.chat.erasing import Erasing
from hubbub.chat.feed import Feed
from hubbub.chat.operators import Operators
from hubbub.chat.ports import Counts
from hubbub.embedded.at_once import FromMemory
from hubbub.embedded.counts import FirstsCounts, counting
from hubbub.embedded.data_folder import ACCOUNTS, REBUILD, DataFolder
from hubbub.embedded.figures import FirstsOverview, of_all, showing
from hubbub.embedded.intake import DirectIntake
from hubbub.embedded.peers import Peer
from hubbub.embedded.processes import Place, Processes
from hubbub.embedded.queue import EmbeddedQueue
from hubbub.embedded.remembered import Remembered
from hubbub.embedded.search_process import SearchProcess
from hubbub.embedded.store import SqliteStore
from hubbub.embedded.view import MemoryCache
from hubbub.http.edge import Edge
from hubbub.http.limits import LocalGate, MemoryCounts
from hubbub.http.mail import Mail
from hubbub.http.metrics import Reading, accepted, cached, lag, part, waiting, writing
from hubbub.http.operator import NoLetters
from hubbub.http.overview import Figures, Overview, nobody
from hubbub.http.passwords import Argon2Passwords
from hubbub.http.service import Adapters, edge_of, now
from hubbub.http.shortcuts import AtOnceShortcuts
from hubbub.loop_lag import LoopLag
from hubbub.measures import Histogram
from hubbub.settings import Settings
from hubbub.tracing import tracing_to

_SETTLED, _ACCOUNTS = "settled", "accounts changed"  # what the first asks the others that serve


def setup_code(settings: Settings, folder: DataFolder) -> str | None:
    """The code of a new link that creates an operator's account; None if there is an operator already. Blocks."""
    store = SqliteStore(folder.database)
    try:
        operators = Operators(store, settings.operators)
        return None if asyncio.run(operators.all()) else operators.invite("", now())
    finally:
        store.close()


class Serving(NamedTuple):
    """What a process that serves consists of, as far as the rest of this file needs it."""

    edge: Edge
    store: SqliteStore
    queue: EmbeddedQueue
    intake: DirectIntake
    search: SearchProcess
    remembered: Remembered

    async def settled(self) -> None:
        """Wait until all that this process has accepted is stored: the queue stores in order, so a command behind it is
        stored after it."""
        await self.intake.accept(EndErasure(()))

    async def rebuild(self) -> None:
        self.search.rebuild()

    async def accounts_changed(self) -> None:
        self.remembered.accounts_changed()


@asynccontextmanager
async def _serving(
    settings: Settings,
    folder: DataFolder,
    place: Place,
    counts: Counts,
    *,
    for_all: Callable[[], Awaitable[list[Reading | Histogram]]],
    others: Callable[[], Awaitable[Sequence[Figures]]] = nobody,
    first: Overview | None = None,
) -> AsyncIterator[Serving]:
    """Build what each process that serves has. Leaving the context finishes the accepted commands. ``for_all`` are the
    figures that one process has for all."""
    tracing = tracing_to(settings.trace_url, "serve")
    loop = asyncio.get_running_loop()

    def unsound(fault: str) -> None:
        """May be called on any thread."""
        loop.call_soon_threadsafe(queue.unsound, fault)

    store = SqliteStore(folder.database, unsound)
    feed = Feed()
    cache = MemoryCache(store, feed)
    gate = LocalGate(settings.user_rate, place.rates, lambda: queue.catch_up())
    remembered = Remembered(cache, gate)
    queue = EmbeddedQueue(remembered, place.shared, place.number, max_commands=settings.queue_commands, tracing=tracing)
    await queue.connect(place.committing)
    index = SearchProcess(queue.indexed, queue.unsound)
    await index.connect(place.searching)
    passwords = Argon2Passwords()
    loop_lag = LoopLag()

    async def readings() -> list[Reading | Histogram]:
        return [
            accepted(queue.accepted),
            waiting(queue.depth),
            *cached(cache.hits, cache.misses),
            loop_lag.lags,
            *await for_all(),
        ]

    intake = DirectIntake(queue, now)
    adapters = Adapters(
        store=store,
        intake=intake,
        view=cache,
        shortcuts=lambda sessions: AtOnceShortcuts(sessions, FromMemory(cache, intake, gate, queue.catch_up)),
        index=index,
        gate=gate,
        counts=counts,
        passwords=passwords,
        feed=feed,
        letters=NoLetters(),
        secret=folder.secret,
        faults=lambda: {"queue": queue.fault, "store": queue.store_fault or store.fault, "search": index.fault},
        readings=readings,
        others=others,
        first=first,
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
    try:
        with loop_lag.watched():
            yield Serving(edge, store, queue, intake, index, remembered)
    finally:
        sweeping.cancel()
        if mail is not None:
            await mail.close()
        await queue.close()
        await index.close()
        passwords.close()
        store.close()
        if tracing is not None:
            tracing.close()


@asynccontextmanager
async def serving(settings: Settings, folder: DataFolder, place: Place, processes: Processes) -> AsyncIterator[Edge]:
    """Run the service, with this as the first process that serves. Leaving the context ends the other processes."""
    counts = MemoryCounts()
    peers = [Peer(f"serve-{number}") for number, _ in enumerate(place.peers, 1)]

    async def for_all() -> list[Reading | Histogram]:
        seconds = await here.search.lag()
        return [
            *writing(here.queue.measures),
            *([lag(seconds)] if seconds is not None else []),
            *(reading for each in processes.all for reading in part(each.name, each.pid)),
        ]

    async def everywhere(what: str, act: Callable[[], Awaitable[None]]) -> None:
        """Do it here, and ask the others to do the same."""
        await asyncio.gather(act(), *(each.ask(what) for each in peers))

    here: Serving
    async with _serving(settings, folder, place, counts, for_all=for_all, others=lambda: of_all(peers)) as here:
        here.store.forget_sessions(now())
        here.store.forget_links(now())
        processes.begin()
        for peer, channel in zip(peers, place.peers, strict=True):
            await peer.connect(channel, {**counting(counts), **showing(here.edge.overview)})
        tasks = [
            asyncio.create_task(each)
            for each in (
                Erasing(here.store, here.intake, lambda: everywhere(_SETTLED, here.settled)).run(),
                folder.when_asked(REBUILD, here.rebuild),
                folder.when_asked(ACCOUNTS, lambda: everywhere(_ACCOUNTS, here.accounts_changed)),
            )
        ]
        try:
            yield here.edge
        finally:
            for task in tasks:
                task.cancel()
            await processes.served()
            for peer in peers:
                await peer.close()
    await processes.ended()


@asynccontextmanager
async def serving_beside(settings: Settings, folder: DataFolder, place: Place) -> AsyncIterator[Edge]:
    """Run another process that serves."""
    first = Peer("serve")

    async def for_all() -> list[Reading | Histogram]:
        return []

    overview = FirstsOverview(first)
    async with _serving(settings, folder, place, FirstsCounts(first), for_all=for_all, first=overview) as here:
        answers = {_SETTLED: here.settled, _ACCOUNTS: here.accounts_changed, **showing(here.edge.overview)}
        await first.connect(place.peers[0], answers)
        try:
            yield here.edge
        finally:
            await first.close()
