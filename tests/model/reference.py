"""A reference for the scripts of one chat, written from the text of redis/keys.py and of the protocol's page, not from
the scripts. The model's own machine (redis.py) does not suffice: it has no marks of what is not stored yet and no page
versions, and its caller tells it what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hubbub.chat.commands import Outcome
from hubbub.chat.model import Message
from hubbub.cluster.protocol import (
    AppliedBefore,
    Delete,
    Edit,
    Failed,
    Opened,
    Position,
    Post,
    Repeated,
    Straggler,
    order_of,
    place_of,
)
from tests.model.real_store import KEPT, Row

MARGIN, MOST, LEAST, MANY = 6, 8, 2, 14  # the scripts have 200, 2000, 100 and 5000


@dataclass(frozen=True)
class MessagesRead:
    """An entry. ``message`` is None if it is deleted. The store does not have it yet if it ``waits``."""

    order: int
    message: Message | None
    waits: bool = False


class Words(NamedTuple):
    """A writer's report of one command. ``kind`` is 'p', 'x', 'a', 'e' or 'd', see scripts/applied.lua."""

    kind: str
    number: int
    shown: MessagesRead | None = None
    order: int = 0
    epoch: int = 0


@dataclass
class Known:
    """The entry of an Idempotency-Key."""

    epoch: int
    number: int
    at: int
    hash: bytes
    tries: int = 1
    told: bool = False
    short: bool = False


@dataclass
class Reference:
    """A chat in Redis. ``entries`` has the numbers above the floor, ``beside`` some below; None is not shown yet."""

    there: bool = True
    epoch: int = 1
    live: bool = True
    last: int = 0
    floor: int = 0
    place: int = 0
    position: Position | None = None
    notes: dict[int, set[int]] = field(default_factory=dict)
    edited: dict[int, int] = field(default_factory=dict)  # the place of each message's last stored edit
    entries: dict[int, MessagesRead | None] = field(default_factory=dict)
    beside: dict[int, MessagesRead | None] = field(default_factory=dict)
    keys: dict[str, Known] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)

    @property
    def open(self) -> bool:
        return self.there and self.live

    # Words of API processes -----------------------------------------------------------------------------------

    def number(self) -> tuple[int, int]:
        self.last += 1
        self.entries[self.last] = None
        return self.epoch, self.last

    def release(self, epoch: int, number: int, key: str | None) -> None:
        if key is not None:
            known = self.keys.get(key)
            if known is None or (known.epoch, known.number) != (epoch, number) or known.told:
                return
            known.tries -= 1
            if known.tries > 0:
                return
            del self.keys[key]
        if self.there and self.epoch == epoch and number in self.entries and self.entries[number] is None:
            del self.entries[number]

    def order(self, number: int) -> tuple[int, MessagesRead | None] | str:
        """Return the order and the entry, which is None if only the store has the message; or why there is no order."""
        if not self.open:
            return "closed"
        if len(self.beside) >= MANY:
            return "full"
        if number in self.entries or number in self.beside:
            shown = self.entries[number] if number in self.entries else self.beside[number]
            if shown is None or shown.message is None:
                return "missing"
        elif number > self.floor:
            return "missing"
        else:
            shown = None
        self.place += 1
        self.notes.setdefault(number, set()).add(self.place)
        return order_of(self.epoch, self.place), shown

    def show(self, command: Post | Edit | Delete, shown: MessagesRead) -> bool:
        """Show a command, and return whether the client may get its answer."""
        number = command.number
        if isinstance(command, Post):
            if not self.open or self.epoch != command.epoch:
                return False
            for held in (self.entries, self.beside):
                if number in held and held[number] is None:
                    held[number] = replace(shown, waits=True)
            known = self.keys.get(command.key or "")
            if known is not None and known.number == number:
                known.told = True
            return True
        epoch, place = place_of(command.order)
        if not self.open or self.epoch != epoch:
            return False
        home = self.entries if number in self.entries else self.beside
        if number in home:
            was = home[number]
            if isinstance(command, Delete) or was is None:
                home[number] = shown
            elif was.message is not None and was.order < shown.order:
                home[number] = replace(shown, waits=was.waits)
        elif (
            number <= self.floor
            and place in self.notes.get(number, ())
            and (isinstance(command, Delete) or place > self.edited.get(number, 0))
        ):
            self.beside[number] = shown
        return True

    # Words of writers -----------------------------------------------------------------------------------------

    def applied(self, words: Sequence[Words], position: Position) -> list[int]:
        """Apply a writer's report, and return the numbers that it must look up."""
        if not self.there:
            return []
        newer = self._newer(position)
        unknown: list[int] = []
        highest = 0
        for word in words:
            number = word.number
            above, under = number in self.entries, number in self.beside
            home = self.entries if above else self.beside
            held = home.get(number)
            if word.kind == "p":
                if word.epoch != self.epoch:
                    continue
                highest = max(highest, number)
                if held is not None and held.waits:
                    home[number] = replace(held, waits=False)
                    if under and not self._changing(number, held):
                        del self.beside[number]
                elif above and held is None:
                    self.entries[number] = word.shown
                elif under and held is None:
                    del self.beside[number]
            elif word.kind == "x":
                if word.epoch == self.epoch:
                    self.entries.pop(number, None)
            elif word.kind == "a":
                if not above and not under and newer and number > self.floor:
                    self.entries[number] = word.shown
            elif place_of(word.order)[0] != self.epoch:
                continue
            elif word.kind == "d":
                self.entries.pop(number, None)
                self.beside.pop(number, None)
                self.notes.pop(number, None)
                self.edited.pop(number, None)
            else:
                place = place_of(word.order)[1]
                self.notes.get(number, set()).discard(place)
                self.edited[number] = max(self.edited.get(number, 0), place)
                if above and (held is None or (held.message is not None and held.order < word.order)):
                    unknown.append(number)
                elif under and (held is None or (held.message is not None and held.order <= word.order)):
                    del self.beside[number]
        self._rise(highest)
        if newer:
            self.position = position
        return unknown

    def refreshed(self, numbers: Sequence[int], found: dict[int, Row], position: Position) -> None:
        if not self.there:
            return
        for number in numbers:
            if number not in self.entries:
                continue
            held = self.entries[number]
            if number not in found:
                del self.entries[number]
            elif held is None or (held.message is not None and held.order < found[number].changed):
                self.entries[number] = MessagesRead(found[number].changed, found[number].message)
        if self._newer(position):
            self.position = position

    def _newer(self, position: Position) -> bool:
        known = self.position
        return known is None or (position.shards, position.transactions) > (known.shards, known.transactions)

    def _changing(self, number: int, shown: MessagesRead | None) -> bool:
        """Return whether the entry shows a change that is not stored."""
        if shown is None or not shown.order:
            return False
        epoch, place = place_of(shown.order)
        return epoch == self.epoch and place in self.notes.get(number, ())

    def _rise(self, highest: int) -> None:
        to = min(highest - MARGIN, self.floor + MOST)
        if to <= self.floor + LEAST or len(self.beside) >= MANY:
            return
        for number in range(self.floor + 1, to + 1):
            if number in self.entries:
                held = self.entries.pop(number)
                if held is None or held.waits or held.message is None or self._changing(number, held):
                    self.beside[number] = held
        self.floor = to

    # Opening --------------------------------------------------------------------------------------------------

    def lost(self) -> None:
        """Lose everything at once."""
        self.there = self.live = False
        self.epoch = 0
        self.entries, self.beside, self.notes, self.keys, self.announced = {}, {}, {}, {}, set()

    def want(self, candidate: str) -> bool:
        if self.open:
            return False
        self.announced.add(candidate)
        return True

    def seed(self, candidate: str, opened: Opened, position: Position) -> bool:
        if self.open or (self.there and self.epoch >= opened.epoch) or candidate not in self.announced:
            return False
        self.there, self.live, self.epoch, self.place = True, False, opened.epoch, 0
        self.last, self.position, self.announced = opened.last_number, position, set()
        self.floor = opened.newest[-1][0].number - 1 if len(opened.newest) == KEPT else 0
        self.entries = {message.number: MessagesRead(order, message) for message, order in opened.newest}
        self.beside, self.notes, self.edited = {}, {}, {}
        return True

    def go_live(self, epoch: int) -> None:
        if self.there and self.epoch == epoch:
            self.live = True

    # Reading --------------------------------------------------------------------------------------------------

    def view(self, stored: dict[int, Row]) -> dict[int, Message]:
        """Return what readers see, given what the store answers."""
        if not self.open:
            return {number: row.message for number, row in stored.items()}
        found = {number: row.message for number, row in stored.items() if number <= self.floor}
        for number, shown in [*self.beside.items(), *self.entries.items()]:
            if shown is not None and shown.message is not None:
                found[number] = shown.message
            elif shown is not None:
                found.pop(number, None)
        return found


def words_of(command: Post | Edit | Delete, outcome: Outcome) -> Words | None:
    """Return what a writer reports of a command."""
    if isinstance(outcome, Failed | Straggler | AppliedBefore):
        return None
    if isinstance(command, Edit | Delete):
        return Words("e" if isinstance(command, Edit) else "d", command.number, order=command.order)
    message = Message(
        command.number, command.sender_id, command.sender_ref, command.sender_name, command.body, command.created_at
    )
    if isinstance(outcome, Repeated):
        return Words("x", command.number, epoch=command.epoch) if outcome.number != command.number else None
    return Words("p" if command.epoch else "a", command.number, MessagesRead(0, message), epoch=command.epoch)


def words_again(commands: Sequence[Post | Edit | Delete], rows: dict[int, Row], aside: set[int]) -> list[Words]:
    """Return what a writer reports of commands that were applied before, from what the store has now."""
    words = []
    for command in commands:
        number, row = command.number, rows.get(command.number)
        if isinstance(command, Post) and row is not None:
            shown = MessagesRead(row.changed, row.message)
            words.append(Words("p" if command.epoch else "a", number, shown, epoch=command.epoch))
        elif isinstance(command, Edit) and row is not None and command.order <= row.changed:
            words.append(Words("e", number, order=command.order))
        elif isinstance(command, Delete) and row is None and number not in aside:
            words.append(Words("d", number, order=command.order))
    return words
