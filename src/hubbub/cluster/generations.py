"""Tracks the data set of each Redis, and whether its numbers may be given to clients. It implements rule 3.

A generation is a row in the database that names a data set. If a process finds that its Redis holds another data set
than the one that the newest generation names, it creates the next generation. A process may acknowledge a number only
while it has a *lease*: for ``LEASE_S`` from the time when it began to ask the database and was told that its generation
is the newest.

While the database answers no process, no process can create a generation. So a query that fails also extends a lease,
if it was begun within the lease and the connection to Redis is the same as when the database answered last. So nothing
in this process may make a query fail: it has connections and threads of its own, for which no request waits.

A new generation is used once all leases of older ones are over. That is so when every API process that was seen lately
says that it holds the new one, and the database has answered for long enough that there are no other processes; or when
the database has answered without a break for longer than a lease since this process first saw the new generation. The
first process to use it records that, and then all processes may use it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from hubbub.chat.errors import Unavailable
from hubbub.cluster.database import Database
from hubbub.cluster.engine import engine_of
from hubbub.cluster.processes import Generation, Processes
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.tasks import keep

log = logging.getLogger("hubbub.redis")

T = TypeVar("T")

LEASE_S = 3.0
_OVER_S = 3.6  # after this a lease is over, even if clocks differ in speed by a fifth
_STEADY_S = 20.0  # longer than a process that is no longer seen stays in the table
_BEAT_S = 0.4
_WITHIN_S = 1.5  # a beat that takes longer has failed
_STOOD_STILL_S = 2.5  # a failed beat that took longer shows that this process was frozen, or had no CPU
_THREADS = 4  # a query that hangs must not hold up the next ones
_ANSWER_S = 3


def beating(url: str) -> Database:
    """The database, with connections for beats only. They are never idle, and so never closed: while the server has no
    connection left to give, these are there."""
    return Database(url, pool_size=_THREADS, engine=engine_of(url, _THREADS, answer_s=_ANSWER_S, recycle_s=-1))


class Generations:
    """An API process's view of the generations: it sends heartbeats ("beats"), creates generations, and holds leases.
    ``changed`` is called when a slot starts to use a new generation."""

    def __init__(self, processes: Processes, servers: Servers, name: str, changed: Callable[[], None]) -> None:
        self._processes = processes
        self._servers = servers
        self._name = name
        self._changed = changed
        self._holds: dict[int, int] = {}
        self._seen_at: dict[tuple[int, int], float] = {}  # when this process first saw each slot's generation
        self._until = 0.0
        self._away = False
        self._steady_since = time.monotonic()
        self._connections: dict[int, int] = {}  # of each slot, when the database answered last
        self._beaten = asyncio.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="beat")
        self._beating = keep(self._beat_on(), "the generations of Redis")

    async def _beat_on(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(_WITHIN_S):
                    again = await self._beat(begun)
            except (Unavailable, TimeoutError) as error:
                self._steady_since = time.monotonic()
                if self._steady_since - begun > _STOOD_STILL_S:
                    continue  # the database may be fine: ask it again before it counts as unreachable
                if not self._away:
                    log.warning("The generations of Redis can't be read: %s", error or "no answer")
                self._away, again = True, False
                if begun < self._until:
                    self._until = begun + LEASE_S
            beaten, self._beaten = self._beaten, asyncio.Event()
            beaten.set()
            if not again:
                await asyncio.sleep(max(0.0, _BEAT_S - (time.monotonic() - begun)))

    async def _beat(self, begun: float) -> bool:
        """One beat. Returns whether another should follow at once."""
        newest = await self._ask(partial(self._processes.beat, self._name, dict(self._holds)))
        holds = {slot: found.generation for slot, found in newest.items()}
        again = holds != self._holds
        heard = time.monotonic()
        self._seen_at = {each: self._seen_at.get(each, heard) for each in holds.items()}
        self._holds = holds  # from here on no older number is acknowledged; the next beat reports that
        self._until = begun + LEASE_S
        if self._away:
            self._away = False
            log.warning("The generations of Redis are read again.")
        steady_s = begun - self._steady_since
        for slot, client in enumerate(self._servers.clients):
            self._connections[slot] = client.connection
            found = newest.get(slot)
            if client.keys is not None and (found is None or client.keys.generation != found.generation):
                client.keys = None
            if not client.identity:
                continue
            if found is None or client.identity != found.identity:
                client.keys = None
                after = 0 if found is None else found.generation
                await self._ask(partial(self._processes.make_generation, slot, after + 1, client.identity))
                again = True
            elif client.keys is None and not again:
                usable = await self._may_use(slot, found, steady_s)
                if usable and client.identity == found.identity:
                    client.keys = Keys(found.generation)
                    self._changed()
        return again

    async def _may_use(self, slot: int, found: Generation, steady_s: float) -> bool:
        """Whether all leases of older generations are over."""
        if found.used:
            return True
        others = found.known and steady_s > _STEADY_S
        # A process that was told that an older one is the newest began to ask before this one was committed, and so
        # before it was seen here. The time of its creation is no such bound: a commit may take seconds.
        seen_s = time.monotonic() - self._seen_at[slot, found.generation]
        if found.generation > 1 and not others and min(seen_s, steady_s) < _OVER_S:
            return False
        await self._ask(partial(self._processes.use_generation, slot, found.generation))
        return True

    def _ask(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run a query on a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def fresh(self, slot: int, generation: int) -> bool:
        """Whether there is a lease: a number of this generation may be acknowledged now, and reads of it are of the
        data set that the other processes write to."""
        if self._holds.get(slot) != generation or time.monotonic() >= self._until:
            return False
        return not self._away or self._servers.clients[slot].connection == self._connections.get(slot)

    async def vouch(self, slot: int, generation: int) -> bool:
        """Like ``fresh``, but waits for a beat if none is recent enough, unless the database can't be reached."""
        while not self.fresh(slot, generation):
            if self._away or self._holds.get(slot) != generation:
                return False
            await self._beaten.wait()
        return True

    async def close(self) -> None:
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)


async def follow(processes: Processes, clients: list[RedisClient]) -> None:
    """For a writer: keep the names of each connection at the newest generation, if that names its data set. Runs until
    cancelled."""
    while True:
        try:
            newest = await asyncio.to_thread(processes.generations)
        except Unavailable:
            newest = None
        if newest is not None:
            for slot, client in enumerate(clients):
                generation, identity = newest.get(slot, (0, ""))
                if client.identity != identity or not generation:
                    client.keys = None
                elif client.keys is None or client.keys.generation != generation:
                    client.keys = Keys(generation)
        await asyncio.sleep(_BEAT_S)
