"""Faults that happen between steps."""

from __future__ import annotations

from typing import Any

from tests.model.api import Api
from tests.model.client import ABANDONED, BROKEN
from tests.model.redis import Redis
from tests.model.world import Process, Steps, World
from tests.model.writer import Writer


class Faults:
    """Faults, chosen by the weights of the profile."""

    __slots__ = ("copies", "strikes", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self.strikes = [getattr(self, name) for name, weight in world.profile.strikes for _ in range(weight)]
        self.copies: list[Redis] = []

    def strike(self) -> None:
        self.strikes[self.world.below(len(self.strikes))]()

    def _one(self, processes: list[Any]) -> Any:
        return processes[self.world.below(len(processes))]

    # Processes ------------------------------------------------------------------------------------------------

    def crash_api(self) -> None:
        """Crash an API process, which loses its memory. Another process takes its place."""
        world = self.world
        index = world.below(len(world.apis))
        api = world.apis[index]
        world.count("an API process crashes")
        world.crash(api)
        api.publisher.link = None
        world.apis[index] = Api(world, index)
        world.apis[index].redis = api.redis
        for client in world.clients:
            if client.at is api:
                client.give_up(BROKEN)

    def crash_writer(self) -> None:
        world = self.world
        index = world.below(len(world.writers))
        writer = world.writers[index]
        world.count("a writer crashes")
        world.crash(writer)
        if writer.channel is not None:
            world.spawn(world.network, self._notice(writer))
        world.writers[index] = Writer(world, index)
        world.writers[index].redis = writer.redis

    def _notice(self, writer: Writer) -> Steps:
        """Let the broker notice some time later that the connection is lost."""
        yield
        self.world.broker.close(writer.channel)

    def _freeze(self, process: Process) -> None:
        world = self.world
        process.frozen = world.now + 5 + int(world.draw() ** 2 * 80)

    def freeze_api(self) -> None:
        self.world.count("an API process is frozen")
        self._freeze(self._one(self.world.apis))

    def freeze_writer(self) -> None:
        self.world.count("a writer is frozen")
        writer = self._one(self.world.writers)
        self._freeze(writer)
        if self.world.draw() < 0.6 and writer.channel is not None:
            self.world.spawn(self.world.network, self._notice(writer))

    def heartbeat(self) -> None:
        """Drop a writer's connection while the writer continues."""
        writer = self._one(self.world.writers)
        if writer.channel is not None:
            self.world.count("a writer's connection drops")
            self.world.broker.close(writer.channel)

    def hand_over(self) -> None:
        self.world.count("a shard changes hands")
        writer = self._one(self.world.writers)
        writer.give_up = True
        channel = writer.channel
        if channel is not None and channel.task is not None:
            task, channel.task = channel.task, None
            self.world.wake(task)

    # Broker ---------------------------------------------------------------------------------------------------

    def doubt(self) -> None:
        """Drop a publisher's connection. What is on its way is lost, or arrives without a confirm."""
        world = self.world
        api = self._one(world.apis)
        world.count("a publisher's connection drops")
        link = api.publisher.link
        if world.draw() < 0.4:
            del link.items[world.below(len(link.items) + 1) :]
        api.publisher.doubt()
        api.publisher.down = world.now + world.below(12)

    def reset(self) -> None:
        self.world.count("the broker starts again")
        self.world.broker.reset(self.world.below(4))

    # Redis ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        self.world.count("Redis is flushed")
        self._one(self.world.servers).empty()

    def kill_redis(self) -> None:
        self.world.count("Redis is killed")
        self._one(self.world.servers).restart()

    def copy(self) -> None:
        """Keep a copy of Redis, to fail over to later."""
        self.copies.append(self._one(self.world.servers).copy())

    def fail_over(self) -> None:
        world = self.world
        if self.copies:
            world.count("Redis fails over to an old copy")
            self._one(world.servers).become(self._one(self.copies).copy())

    def switch(self) -> None:
        """Let a process change to the other of two Redis servers."""
        world = self.world
        if len(world.servers) < 2:
            world.count("there are two Redises")
            if not self.copies:
                self.copy()
            other = world.servers[0].copy() if world.draw() < 0.5 else self._one(self.copies).copy()
            world.servers.append(other)
        world.count("a process goes to another Redis")
        process = self._one(world.apis + world.writers)
        process.redis = 1 - process.redis

    # Others ---------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        client = self._one(self.world.clients)
        if client.waits_for is not None:
            self.world.count("a client gives up waiting")
            client.give_up(ABANDONED)

    def outage(self) -> None:
        self.world.count("the store is away")
        self.world.store.down = self.world.now + 10 + self.world.below(120)
