"""A writer process, which takes deliveries, applies them, and reports that to Redis."""

from __future__ import annotations

from typing import Any

from tests.model.broker import Channel, Delivery
from tests.model.command import Command
from tests.model.redis import Redis
from tests.model.store import TryAgain
from tests.model.world import PARKED, Lost, Process, Steps, Task, World

GAP_TRIES = 2


class Writer(Process):
    """A writer. It hands the shard over on ``give_up``. It has ``stopped`` if the queue lacks a confirmed delivery."""

    __slots__ = ("channel", "gaps", "give_up", "stopped", "stored", "task", "world")

    def __init__(self, world: World, index: int) -> None:
        super().__init__(f"writer{index}.{world.unique()}")
        self.world = world
        self.channel: Channel | None = None
        self.give_up = False
        self.stopped = False
        self.gaps: dict[tuple[int, int], int] = {}
        self.stored: dict[int, set[int]] = {}
        self.task: Task = world.spawn(self, self._work())

    def paused(self, world: World) -> None:
        if world.draw() < 0.7 and self.channel is not None:
            world.spawn(world.network, self._noticed(self.channel))

    def _noticed(self, channel: Channel) -> Steps:
        """Let the broker miss the heartbeat."""
        yield
        self.world.broker.close(channel)

    def _work(self) -> Steps:
        world = self.world
        while True:
            yield
            channel = self.channel = world.broker.consume(self)
            try:
                yield from self._read(channel)
            except Lost:
                # An unexpected error ends the reader.
                if world.rules.dies_loudly:
                    world.broker.close(channel)
                    continue
                world.note(f"{self.name} ends without a word")
                return
            self.give_up = False
            if channel.open:
                if world.rules.channel_is_closed:
                    world.broker.close(channel)
                else:
                    world.broker.cancel(channel)
                    yield
                    yield
                    world.broker.send_back(channel)
            if self.stopped:
                return

    def _read(self, channel: Channel) -> Steps:
        """Read until the channel is closed, the shard is given up, or a delivery is missing."""
        world = self.world
        while channel.open and not self.give_up:
            waiting = channel.waiting
            if not waiting:
                channel.task = self.task
                yield PARKED
                continue
            batch: list[Delivery] = [waiting.pop(0)]
            if batch[0].command.kind != "open":
                while waiting and waiting[0].command.kind != "open" and len(batch) < 3:
                    batch.append(waiting.pop(0))
            gap = yield from self._write(batch)
            if gap is not None:
                index = batch.index(gap)
                yield
                world.broker.acknowledge(channel, batch[:index])
                yield from self._gap(gap, batch[index:] + channel.waiting)
                return
            yield
            world.broker.acknowledge(channel, batch)

    def _gap(self, gap: Delivery, behind: list[Delivery]) -> Steps:
        """Handle a missing delivery. It usually comes when the broker hands out everything again."""
        world = self.world
        missing = world.store.publishers.get(gap.name, 0) + 1
        tries = self.gaps[gap.name, missing] = self.gaps.get((gap.name, missing), 0) + 1
        if tries <= GAP_TRIES:
            return
        if any(delivery.name == gap.name and delivery.confirmed >= missing for delivery in behind):
            world.note(f"{self.name}: {gap.name}#{missing} is lost, and was acknowledged")
            self.stopped = True
            return
        try:
            yield from world.query(self, world.store.put_aside, gap)
        except Lost:
            return

    def _write(self, batch: list[Delivery]) -> Steps:
        """Apply a batch, and return the delivery before which one is missing, if any."""
        world = self.world
        while True:
            try:
                applied = yield from world.query(self, world.store.apply, batch)
                break
            except Lost:
                continue
            except TryAgain:
                if not world.rules.tries_again:
                    try:
                        yield from world.query(self, world.store.set_aside, batch)
                    except Lost:
                        continue
                    return None
        chats: dict[int, list[tuple[Any, ...]]] = {}
        before: list[Command] = []
        for delivery, outcome in zip(batch, applied.outcomes, strict=False):
            command: Command = delivery.command
            kind = command.kind
            if kind == "open":
                if outcome != "skipped":
                    yield from self._open(command, outcome)
            elif kind == "barrier":
                yield from self._say(Redis.barrier_came, command.generation, command.candidate)
            elif outcome == "skipped":
                before.append(command)
            elif kind == "post" and outcome != "aside":
                retold = outcome == "stored" or not world.rules.gone_stays_gone
                self.stored.setdefault(command.chat, set()).add(command.number)
                chats.setdefault(command.chat, []).append(
                    ("post", command.number, command.text if retold else None, command.claim)
                )
            elif outcome != "aside":
                chats.setdefault(command.chat, []).append((kind, command.number, command.order, None))
        if before:
            yield from self._as_it_is(before, chats)
        for chat, words in chats.items():
            yield from self._applied(chat, words, applied.generation)
        return applied.gap

    def _as_it_is(self, before: list[Command], chats: dict[int, list[tuple[Any, ...]]]) -> Steps:
        """Add the report of commands that were applied before. Each may have been set aside, or its message
        changed since, so ask the store.
        """
        for command in before:
            chat, number, kind = command.chat, command.number, command.kind
            try:
                changed = yield from self.world.query(self, self.world.store.changed, chat, number)
            except Lost:
                return
            if kind == "delete":
                said = changed is None
            else:
                said = changed is not None and (kind == "post" or command.order <= changed)
            if said:
                word = None if kind == "post" else command.order
                chats.setdefault(chat, []).append((kind, number, word, None))

    def _applied(self, chat: int, words: list[tuple[Any, ...]], generation: int) -> Steps:
        world = self.world
        stored = self.stored.setdefault(chat, set())
        floor = 0
        if stored and world.draw() < world.profile.floor:
            floor = max(stored) - world.below(3)
        gone = [number for number in stored if number <= floor]
        stored.difference_update(gone)
        yield from self._say(Redis.applied, generation, chat, words, floor, gone)

    def _say(self, operation: Any, *words: Any) -> Steps:
        """Report to Redis, if it answers. Without the report, a chat stays correct but holds more than it needs."""
        try:
            return (yield from self.world.ask(self, operation, *words))
        except Lost:
            if not self.world.rules.dies_loudly:
                raise
            return False

    def _open(self, command: Command, opened: tuple[Any, ...]) -> Steps:
        """Take the steps (b), (c) and (d) of an opening. ``opened`` is the outcome of (a)."""
        world = self.world
        epoch, last, highest, shown = opened
        changes = 0 if world.rules.order_names_epoch else highest
        generation, chat = command.generation, command.chat
        seeded = yield from self._say(
            Redis.seed, generation, command.name, chat, command.candidate, epoch, last, changes, shown
        )
        if not seeded:
            return
        while True:
            try:
                live = yield from world.query(self, world.store.commit_live, chat, epoch, generation)
                break
            except Lost:
                continue
        if live and world.rules.two_steps:
            yield from self._say(Redis.go_live, generation, chat, epoch)
