"""Redis and its scripts, each of them atomic. A Redis that dies loses its memory."""

from __future__ import annotations

from typing import Any

from tests.model.world import World

LOOK = 60  # ticks for which a look into the store counts: the protocol's 60 s
KEEP = 70  # ticks for which a key's entry stays after it is stored: the protocol's ten minutes
GONE = -1  # the text of a deleted message

Entry = tuple[int, int]  # the order of the newest change shown, and the text


class Chat:
    """A chat's hash. ``entries`` and ``beside`` are by number; None is a number that was given and is not shown.

    ``notes`` has the number of each change that is not stored, by its order. ``overtaking`` has the order of the last
    stored edit of each number with notes.
    """

    __slots__ = ("beside", "changes", "entries", "epoch", "floor", "keys", "last", "live", "notes", "overtaking")

    def __init__(self, epoch: int, last: int, floor: int, changes: int, entries: dict[int, Entry | None]) -> None:
        self.epoch = epoch
        self.live = False
        self.last = last
        self.floor = floor
        self.changes = changes
        self.notes: dict[int, int] = {}
        self.overtaking: dict[int, int] = {}
        self.entries = entries
        self.beside: dict[int, Entry | None] = {}
        self.keys: dict[Any, list[Any]] = {}

    def copy(self) -> Chat:
        other = Chat(self.epoch, self.last, self.floor, self.changes, dict(self.entries))
        other.live = self.live
        other.notes = dict(self.notes)
        other.overtaking = dict(self.overtaking)
        other.beside = dict(self.beside)
        other.keys = {key: list(value) for key, value in self.keys.items()}
        return other


class Redis:
    """One server. ``name`` identifies its data set, like the run id and replication id."""

    __slots__ = ("announced", "barriers", "chats", "name", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = world.unique()
        self.empty()

    def empty(self) -> None:
        self.chats: dict[tuple[int, int], Chat] = {}
        self.announced: dict[tuple[int, int], set[int]] = {}
        self.barriers: dict[int, set[int] | None] = {}  # the announced ones, or None if one has come through

    def restart(self) -> None:
        self.empty()
        self.name = self.world.unique()

    def copy(self) -> Redis:
        """Return a replica as it is now. Later writes never reach it."""
        other = Redis(self.world)
        other.chats = {key: chat.copy() for key, chat in self.chats.items()}
        other.announced = {key: set(value) for key, value in self.announced.items()}
        other.barriers = {key: value if value is None else set(value) for key, value in self.barriers.items()}
        return other

    def become(self, other: Redis) -> None:
        """Fail over to a copy."""
        self.chats, self.announced, self.barriers = other.chats, other.announced, other.barriers
        self.name = self.world.unique()

    # Words of API processes -----------------------------------------------------------------------------------

    def number(self, generation: int, chat: int, claim: Any, look: tuple[int, int] | None) -> tuple[Any, ...]:
        found = self.chats.get((generation, chat))
        if found is None or not found.live:
            return "closed", 0, 0, self.name
        now, rules = self.world.now, self.world.rules
        if claim is not None:
            known = found.keys.get(claim)
            if known is not None and (known[1] is None or known[1] > now):
                known[2] = True
                return "known", known[0], found.epoch, self.name
            if (
                look is None
                or (look[0] != found.epoch and rules.look_names_epoch)
                or (now - look[1] > LOOK and rules.look_expires)
            ):
                return "look", now, found.epoch, self.name
        found.last += 1
        found.entries[found.last] = None
        if claim is not None:
            found.keys[claim] = [found.last, None, False]
        return "new", found.last, found.epoch, self.name

    def give_back(self, generation: int, chat: int, epoch: int, number: int, claim: Any) -> bool:
        found = self.chats.get((generation, chat))
        if found is None or found.epoch != epoch:
            return False
        key = found.keys.get(claim)
        if key is not None and key[2] and self.world.rules.shared_is_kept:
            return False  # another try has it too
        found.keys.pop(claim, None)
        if number in found.entries and found.entries[number] is None:
            del found.entries[number]
            if found.last == number:
                found.last -= 1
        return True

    def order(self, generation: int, chat: int, number: int) -> tuple[int, int, int]:
        """Return the order, the epoch and the data set's name. The order is 0 if the chat is not live."""
        found = self.chats.get((generation, chat))
        if found is None or not found.live:
            return 0, 0, self.name
        found.changes += 1
        order = found.changes + (found.epoch * 1000 if self.world.rules.order_names_epoch else 0)
        found.notes[order] = number
        return order, found.epoch, self.name

    def show_post(self, generation: int, chat: int, epoch: int, number: int, text: int) -> tuple[bool, int]:
        found = self.chats.get((generation, chat))
        if found is None or not found.live or found.epoch != epoch:
            return False, self.name
        place = found.entries if number > found.floor else found.beside
        if number in place:
            if place[number] is None or not self.world.rules.newer_stays:
                place[number] = 0, text
        elif not self.world.rules.gone_stays_gone:
            place[number] = 0, text
        return True, self.name

    def show_change(
        self, generation: int, chat: int, epoch: int, order: int, number: int, text: int
    ) -> tuple[bool, int]:
        found = self.chats.get((generation, chat))
        if found is None or not found.live or found.epoch != epoch:
            return False, self.name
        rules = self.world.rules
        # A delete is final: an edit that the store has does not overtake it, whatever their orders.
        overtaken = text != GONE and order < found.overtaking.get(number, 0)
        noted = order in found.notes and not overtaken
        if not noted and not rules.note_only_makes:
            return True, self.name
        above = number > found.floor
        place = found.entries if above else found.beside
        if number not in place and ((above and rules.gone_stays_gone) or (not noted and rules.notes_are_needed)):
            return True, self.name  # the message is gone, or the change or a later one is stored
        entry = place.get(number)
        if entry is None or not rules.newer_stays:
            place[number] = order, text
        elif entry[1] == GONE:
            pass
        elif entry[0] < order:
            place[number] = order, text
        elif text == GONE and rules.delete_is_final:
            place[number] = entry[0], GONE
        return True, self.name

    def announce(self, generation: int, chat: int, candidate: int) -> bool:
        found = self.chats.get((generation, chat))
        if found is not None and found.live:
            return False
        self.announced.setdefault((generation, chat), set()).add(candidate)
        return True

    def announce_barrier(self, generation: int, candidate: int) -> bool:
        waiting = self.barriers.setdefault(generation, set())
        if waiting is None:
            return False
        waiting.add(candidate)
        return True

    def read(
        self, generation: int, chat: int
    ) -> tuple[int, dict[int, Entry | None], bool, int] | tuple[None, None, bool, int]:
        """Return the floor and the entries, or None twice without a hash; whether a barrier has come through; and the
        data set's name.
        """
        found = self.chats.get((generation, chat))
        through = self.barriers.get(generation, True) is None
        if found is None or not (found.live or not self.world.rules.pending_is_not_read):
            return None, None, through, self.name
        return found.floor, found.entries | found.beside, through, self.name

    # Words of writers -----------------------------------------------------------------------------------------

    def seed(
        self,
        generation: int,
        name: int,
        chat: int,
        candidate: int,
        epoch: int,
        last: int,
        changes: int,
        shown: dict[int, Entry],
    ) -> bool:
        waiting = self.announced.get((generation, chat), ())
        rules = self.world.rules
        if candidate not in waiting and rules.announced:
            return False
        if name != self.name and rules.marker_names_set:
            return False
        found = self.chats.get((generation, chat))
        if found is not None and (found.live or found.epoch >= epoch):
            return False
        self.announced.pop((generation, chat), None)
        floor = min(shown) - 1 if shown else last
        opened = self.chats[generation, chat] = Chat(epoch, last, floor, changes, dict(shown))
        opened.live = not rules.two_steps
        return True

    def go_live(self, generation: int, chat: int, epoch: int) -> bool:
        found = self.chats.get((generation, chat))
        if found is None or found.epoch != epoch:
            return False
        found.live = True
        return True

    def barrier_came(self, generation: int, candidate: int) -> None:
        if candidate in (self.barriers.get(generation) or ()):
            self.barriers[generation] = None

    def applied(self, generation: int, chat: int, words: list[tuple[Any, ...]], floor: int, stored: list[int]) -> None:
        """Note what the store has: ("post", number, text, claim) or ("edit" or "delete", number, order, None).

        ``stored`` has the numbers at or below the new floor that are stored. Others are moved beside.
        """
        found = self.chats.get((generation, chat))
        if found is None:
            return
        rules = self.world.rules
        notes, entries, beside = found.notes, found.entries, found.beside
        for kind, number, word, claim in words:
            if kind == "post":
                key = None if claim is None else found.keys.get(claim)
                if key is not None and key[0] == number:
                    if rules.key_is_kept:
                        key[1] = self.world.now + KEEP
                    else:
                        del found.keys[claim]
                if number in entries:
                    if entries[number] is None and word is not None:
                        entries[number] = 0, word
                elif number in beside:
                    shown = beside[number]
                    if shown is None or shown[0] not in notes:
                        del beside[number]
                elif not rules.gone_stays_gone and number > found.floor and word is not None:
                    entries[number] = 0, word
            else:
                for order in [order for order in notes if notes[order] == number]:
                    if order == word or kind == "delete":
                        del notes[order]
                if number not in notes.values():
                    found.overtaking.pop(number, None)
                elif kind == "edit":
                    found.overtaking[number] = max(word, found.overtaking.get(number, 0))
                entry = beside.get(number)
                if kind == "delete":
                    entries.pop(number, None)
                    beside.pop(number, None)
                elif entry is not None and entry[0] <= word and entry[1] != GONE:
                    del beside[number]
        if floor > found.floor:
            for number in [number for number in entries if number <= floor]:
                entry = entries.pop(number)
                if not rules.floor_moves_beside:
                    continue
                if number not in stored or entry is None or entry[0] in notes:
                    beside[number] = entry
            found.floor = floor
