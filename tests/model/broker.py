"""RabbitMQ: a quorum queue with a single active consumer, and the publishers' connections."""

from __future__ import annotations

from typing import Any

from tests.model.world import Steps, Task, World

PREFETCH = 6


class Delivery:
    """A delivery. All up to ``confirmed`` were confirmed, in order, when its publisher sent it."""

    __slots__ = ("command", "confirmed", "name", "sequence")

    def __init__(self, name: int, sequence: int, confirmed: int, command: Any) -> None:
        self.name = name
        self.sequence = sequence
        self.confirmed = confirmed
        self.command = command

    def __repr__(self) -> str:
        return f"{self.name}#{self.sequence} {self.command}"


class Channel:
    """A writer's consumer. ``waiting`` has deliveries that it has not begun; ``task`` is the task to wake."""

    __slots__ = ("consuming", "open", "task", "waiting", "writer")

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self.open = True
        self.consuming = True
        self.waiting: list[Delivery] = []
        self.task: Task | None = None


class Broker:
    """The queue of one shard. ``items`` are in order, each with the channel that holds it."""

    __slots__ = ("acknowledged", "channels", "items", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self.items: list[list[Any]] = []
        self.channels: list[Channel] = []
        self.acknowledged: list[Delivery] = []

    def take(self, delivery: Delivery) -> None:
        self.items.append([delivery, None])
        self._hand_out()

    def consume(self, writer: Any) -> Channel:
        channel = Channel(writer)
        self.channels.append(channel)
        self._hand_out()
        return channel

    def _hand_out(self) -> None:
        active = next((channel for channel in self.channels if channel.consuming), None)
        if active is None:
            return
        room = PREFETCH
        for item in self.items:
            if item[1] is active:
                room -= 1
        for item in self.items:
            if room <= 0:
                break
            if item[1] is None:
                item[1] = active
                active.waiting.append(item[0])
                room -= 1
        self._wake(active)

    def _wake(self, channel: Channel) -> None:
        if channel.task is not None and (channel.waiting or not channel.open):
            task, channel.task = channel.task, None
            self.world.wake(task)

    def acknowledge(self, channel: Channel, deliveries: list[Delivery]) -> None:
        if not channel.open:
            return
        for delivery in deliveries:
            for index, item in enumerate(self.items):
                if item[0] is delivery and item[1] is channel:
                    del self.items[index]
                    self.acknowledged.append(delivery)
                    break
        self._hand_out()

    def close(self, channel: Channel) -> None:
        """Close a channel, and hand out all that it held again, in order and before anything newer."""
        if not channel.open:
            return
        channel.open = channel.consuming = False
        self.channels.remove(channel)
        self._free(channel)
        self._wake(channel)
        self._hand_out()

    def _free(self, channel: Channel) -> None:
        for item in self.items:
            if item[1] is channel:
                item[1] = None
        channel.waiting = []

    def cancel(self, channel: Channel) -> None:
        """Cancel a consumer as the first design did: it keeps what it holds, and the next one is served."""
        channel.consuming = False
        self._hand_out()

    def send_back(self, channel: Channel) -> None:
        self._free(channel)
        self.close(channel)

    def reset(self, again: int) -> None:
        """Break all connections, and deliver the last acknowledged deliveries again."""
        back = self.acknowledged[-again:] if again else []
        if back:
            del self.acknowledged[-again:]
        for channel in list(self.channels):
            self.close(channel)
        self.items[:0] = [[delivery, None] for delivery in back]


class Link:
    """A publisher's connection. Deliveries arrive in order, confirms come back in any order."""

    __slots__ = ("confirms", "items", "publisher", "world")

    def __init__(self, world: World, publisher: Any) -> None:
        self.world = world
        self.publisher = publisher
        self.items: list[Delivery] = []
        self.confirms: list[int] = []

    def send(self, delivery: Delivery) -> None:
        self.items.append(delivery)
        self.world.spawn(self.world.network, self._carry())

    def _carry(self) -> Steps:
        """Carry the next delivery to the broker. There is one such task for each delivery."""
        world = self.world
        yield
        while self.publisher.link is not self and world.draw() < 0.85:  # what was given up as lost arrives late
            yield
        if not self.items:
            return
        delivery = self.items.pop(0)
        if world.profile.nacks and world.draw() >= 1 - world.profile.nacks:
            world.count("a publish is refused by the broker")
            yield
            if self.publisher.link is self:
                self.publisher.doubt()
            return
        if world.trace is not None:
            world.note(f"broker takes {delivery}")
        world.broker.take(delivery)
        self.confirms.append(delivery.sequence)
        yield
        if self.publisher.link is self:
            self.publisher.confirm(self.confirms.pop(world.below(len(self.confirms))))
