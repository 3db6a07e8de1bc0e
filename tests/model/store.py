"""MySQL: tables with atomic transactions."""

from __future__ import annotations

from typing import Any

from tests.model.broker import Delivery
from tests.model.command import Command
from tests.model.world import Refused, World


class TryAgain(Refused):
    """A temporary error, such as a deadlock or a lost connection."""


class Chat:
    """A chat's row. ``opening`` is the epoch whose opening is under way."""

    __slots__ = ("epoch", "highest", "last", "live", "opening")

    def __init__(self) -> None:
        self.epoch = self.live = 1
        self.opening = 0
        self.last = 0
        self.highest = 0  # order


class Row:
    """A message. ``changed`` is the order of the last change that was applied."""

    __slots__ = ("changed", "first", "text")

    def __init__(self, text: int) -> None:
        self.text = self.first = text
        self.changed = 0


class Applied:
    """The outcome of some deliveries. ``outcomes`` has one for each that was applied or skipped: "stored", "known",
    "skipped", "aside", or what an opening found. ``gap`` is the first delivery that came too early, if any.
    """

    __slots__ = ("gap", "generation", "outcomes")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.outcomes: list[Any] = []
        self.gap: Delivery | None = None

    def __repr__(self) -> str:
        return f"{self.outcomes}, gap at {self.gap}"


class Store:
    """The tables. Each method is a transaction. ``generations`` has the data set of each generation, from 1 on, and
    ``made`` is when the newest was made.
    """

    __slots__ = ("aside", "chats", "down", "generations", "keys", "knows", "made", "publishers", "rows", "world")

    def __init__(self, world: World, chats: int) -> None:
        self.world = world
        self.down = 0  # it answers nobody until then
        self.chats = [Chat() for _ in range(chats)]
        self.rows: list[dict[int, Row]] = [{} for _ in range(chats)]
        self.keys: dict[Any, int] = {}
        self.publishers: dict[int, int] = {}
        self.aside: list[Command] = []
        self.generations: list[int] = []
        self.made = -world.profile.lease
        self.knows: dict[str, tuple[int, int]] = {}

    # Generations ----------------------------------------------------------------------------------------------

    def beat(self, process: str, holds: int) -> tuple[int, int, bool]:
        """Note the generation that a process holds. Return the newest, its data set, and whether it may be used."""
        now, lease = self.world.now, self.world.profile.lease
        newest = len(self.generations)
        # A process says which generation it holds, not which it will: if it is late, that may no longer be the newest.
        known = holds if self.world.rules.says_what_it_holds else newest
        self.knows[process] = known, now
        usable = True
        if newest > 1 and self.world.rules.lease:
            # The wait also begins when the store came back: while it was away, processes prolonged their leases.
            since = max(self.made, self.down) if self.world.rules.waits_from_its_making else -lease
            usable = all(
                generation >= newest or max(heard, since) + lease < now for generation, heard in self.knows.values()
            )
        return newest, self.generations[-1], usable

    def make(self, holds: int, name: int) -> None:
        """Make a generation for a data set that the newest one does not name."""
        if holds == len(self.generations) and self.generations[-1] != name:
            self.generations.append(name)
            self.made = self.world.now

    # Reading --------------------------------------------------------------------------------------------------

    def key(self, claim: Any) -> int:
        return self.keys.get(claim, 0)

    def row(self, chat: int, number: int) -> int:
        row = self.rows[chat].get(number)
        return 0 if row is None else row.text

    def changed(self, chat: int, number: int) -> int | None:
        """Return the order of the message's last change, or None if there is no such message."""
        row = self.rows[chat].get(number)
        return None if row is None else row.changed

    def texts(self, chat: int) -> dict[int, int]:
        return {number: row.text for number, row in self.rows[chat].items()}

    # Writing --------------------------------------------------------------------------------------------------

    def apply(self, deliveries: list[Delivery]) -> Applied:
        """Apply the deliveries before a gap. Raises TryAgain."""
        world = self.world
        profile, rules = world.profile, world.rules
        if profile.store_errors and world.draw() >= 1 - profile.store_errors:
            world.count("a transaction fails and would pass")
            raise TryAgain
        applied = Applied(len(self.generations))
        outcomes = applied.outcomes
        spoilt = not rules.bisects and any(delivery.command.faulty for delivery in deliveries)
        for delivery in deliveries:
            last = self.publishers.get(delivery.name, 0)
            if delivery.sequence <= last and rules.lower_is_skipped:
                outcomes.append("skipped")
            elif delivery.sequence > last + 1 and rules.only_the_next:
                applied.gap = delivery
                break
            else:
                self.publishers[delivery.name] = max(last, delivery.sequence)
                if spoilt:
                    self.aside.append(delivery.command)
                    outcomes.append("aside")
                else:
                    outcomes.append(self._one(delivery.command))
        return applied

    def put_aside(self, delivery: Delivery) -> None:
        """Continue behind a gap whose commands were never acknowledged."""
        if delivery.sequence > self.publishers.get(delivery.name, 0):
            self.publishers[delivery.name] = delivery.sequence
            self.aside.append(delivery.command)

    def set_aside(self, deliveries: list[Delivery]) -> None:
        """Set deliveries aside, as a writer does that takes every error for a fault of the commands."""
        for delivery in deliveries:
            self.put_aside(delivery)

    def commit_live(self, chat: int, epoch: int, generation: int) -> bool:
        """Step (c) of an opening."""
        row = self.chats[chat]
        if generation != len(self.generations) and self.world.rules.marker_of_newest:
            return False
        if self.world.rules.other_ends_opening:
            if row.opening != epoch:
                return False
            row.opening = 0
        row.live = max(row.live, epoch)
        return True

    def _one(self, command: Command) -> Any:
        chat, rows, kind, rules = self.chats[command.chat], self.rows[command.chat], command.kind, self.world.rules
        if kind == "barrier":
            return "stored"
        if kind == "open":
            chat.epoch += 1
            chat.opening = chat.epoch
            return chat.epoch, max(chat.last, max(rows, default=0)), chat.highest, self._newest(command.chat)
        if command.faulty:
            self.aside.append(command)
            return "aside"
        if kind == "post":
            if command.claim is not None and command.claim in self.keys:
                return "known"
            if (command.epoch < chat.live and rules.older_posts_aside) or command.number in rows:
                self.aside.append(command)
                return "aside"
            if command.claim is not None:
                self.keys[command.claim] = command.number
            chat.opening = 0
            chat.last = max(chat.last, command.number)
            rows[command.number] = Row(command.text)
            return "stored"
        if command.epoch < chat.live and rules.older_changes_aside:
            self.aside.append(command)
            return "aside"
        chat.opening = 0
        chat.highest = max(chat.highest, command.order)
        row = rows.get(command.number)
        if row is None:
            return "stored"
        if row.changed > command.order and rules.one_order and (kind == "edit" or not rules.delete_is_final):
            return "stored"  # overtaken
        if kind == "delete":
            del rows[command.number]
        else:
            row.text, row.changed = command.text, command.order
        return "stored"

    def _newest(self, chat: int) -> dict[int, tuple[int, int]]:
        rows = self.rows[chat]
        return {number: (rows[number].changed, rows[number].text) for number in sorted(rows)[-3:]}
