"""Tracks the data set of each Redis, and whether its numbers may be given to clients. It implements rule 3.

A generation is a row in the database that names a data set. A process that finds its Redis to hold another than the
newest generation names makes the next one. A number is told only while a process has a *lease*: for ``LEASE_S`` after
it began to ask the database, and heard that its generation is the newest.

While the database answers nobody, nobody can make a generation. So a question that fails prolongs a lease too, where it
was begun within the lease and the connection to Redis is the same as when the database answered last.

A new generation is used once all leases of an older one are over: when every API process that was seen lately says that
it holds to it and the database has answered for long enough that there are no others; or when the database has answered
without a break for longer than a lease since this process first saw it. The first to use it notes that, and then
everybody may.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from hubbub.chat.errors import Unavailable
from hubbub.cluster.processes import Generation, Processes
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.tasks import keep

log = logging.getLogger("hubbub.redis")

LEASE_S = 3.0
_OVER_S = 3.6  # then it is over, though clocks run apart by a fifth
_STEADY_S = 20.0  # longer than a process that is not seen any more stays in the table
_BEAT_S = 0.4
_WITHIN_S = 1.5  # a beat that takes longer has failed
_STOOD_STILL_S = 2.5  # one that is ended only after so long says that this process was frozen, or had no CPU


class Generations:
    """An API process's: it beats, makes generations, and vouches. ``changed`` is told when a slot's generation is
    new."""

    def __init__(self, processes: Processes, servers: Servers, name: str, changed: Callable[[], None]) -> None:
        self._processes = processes
        self._servers = servers
        self._name = name
        self._changed = changed
        self._holds: dict[int, int] = {}
        self._seen_at: dict[tuple[int, int], float] = {}  # when each slot's generation was first heard of
        self._until = 0.0
        self._away = False
        self._steady_since = time.monotonic()
        self._connections: dict[int, int] = {}  # of each slot, when the database answered last
        self._beaten = asyncio.Event()
        self._beating = keep(self._beat_on(), "the generations of Redis")

    async def _beat_on(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(_WITHIN_S):  # wait_for may lose the cancellation that ends this task
                    again = await self._beat(begun)
            except (Unavailable, TimeoutError) as error:
                self._steady_since = time.monotonic()
                if self._steady_since - begun > _STOOD_STILL_S:
                    continue  # the database may answer well: it is asked again before anybody says that it is away
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
        newest = await asyncio.to_thread(self._processes.beat, self._name, dict(self._holds))
        holds = {slot: found.generation for slot, found in newest.items()}
        again = holds != self._holds
        heard = time.monotonic()
        self._seen_at = {each: self._seen_at.get(each, heard) for each in holds.items()}
        self._holds = holds  # from here on nothing older is told; the next beat says so
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
                await asyncio.to_thread(self._processes.make_generation, slot, after + 1, client.identity)
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
        # Whoever heard of an older one as the newest began to ask before this one was committed, and so before it was
        # seen here. The time it was made at says less: a commit may take seconds.
        seen_s = time.monotonic() - self._seen_at[slot, found.generation]
        if found.generation > 1 and not others and min(seen_s, steady_s) < _OVER_S:
            return False
        await asyncio.to_thread(self._processes.use_generation, slot, found.generation)
        return True

    def fresh(self, slot: int, generation: int) -> bool:
        """Whether a number of this generation may be told now, and what is read of it is what others write to."""
        if self._holds.get(slot) != generation or time.monotonic() >= self._until:
            return False
        return not self._away or self._servers.clients[slot].connection == self._connections.get(slot)

    async def vouch(self, slot: int, generation: int) -> bool:
        """As ``fresh``, but waits for a beat where none is recent enough, unless the database is away."""
        while not self.fresh(slot, generation):
            if self._away or self._holds.get(slot) != generation:
                return False
            await self._beaten.wait()
        return True

    async def close(self) -> None:
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)


async def follow(processes: Processes, clients: list[RedisClient]) -> None:
    """A writer's: keeps the names of each connection at the newest generation, where that names its data set. Runs
    until cancelled."""
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
