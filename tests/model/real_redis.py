"""Drive the real scripts and their callers through a schedule of words that is a function of its seed. Compare them
with a reference (reference.py), and with the answers that clients got.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

from msgspec.structs import replace

from hubbub.chat.caller import Caller
from hubbub.chat.commands import Outcome
from hubbub.chat.errors import NotFound, Unavailable
from hubbub.chat.model import ChatKey, Message, MessagesRead, User
from hubbub.cluster.protocol import (
    AppliedBefore,
    Delete,
    Edit,
    Failed,
    OpenChat,
    Opened,
    Position,
    Post,
    Queued,
    Straggler,
    place_of,
)
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.keys import KEY_MS, LIFETIME_MS, SCRIPTS, STORED_KEY_MS, Keys
from hubbub.cluster.redis.messages import RedisView, _Hot
from hubbub.cluster.redis.numbers import Claim, Confirmed, Numbers, Posted, Slot, change_entry, post_entry
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.redis.stored import Stored
from tests.model import reference as told_by
from tests.model.real_store import KeptStore, Late
from tests.model.reference import LEAST, MANY, MARGIN, MOST, Known, Reference, Words, words_of

CALLER = Caller(User(1, "ref", "a@x", "A", 1))
LIMIT = 5  # of the cached page

# With small bounds, even a short schedule raises the floor often and reaches every bound.
_SMALL = (
    ("applied", "highest - 200", f"highest - {MARGIN}"),
    ("applied", "floor + 2000", f"floor + {MOST}"),
    ("applied", "floor + 100 ", f"floor + {LEAST} "),
    ("applied", "5000", f"{MANY}"),
    ("order", "5000", f"{MANY}"),
    ("read", "looked >= 1000", "looked >= 5"),
    ("newest", "looked >= 1000", "looked >= 5"),
    ("want", "< 2000", "< 0"),
)


def small_scripts() -> dict[str, str]:
    scripts = dict(SCRIPTS)
    for name, text, smaller in _SMALL:
        assert text in scripts[name], f"{name}.lua does not say {text!r} any more"
        scripts[name] = scripts[name].replace(text, smaller)
    return scripts


class Wrong(AssertionError):
    """A difference between the real code and the reference."""


class Queue:
    """A publisher that puts markers behind what is queued, and generations that are always in use."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive

    def shard_of(self, token: str) -> int:
        return 0

    async def accept(self, command: OpenChat) -> None:
        self._drive.queue.append(command)
        self._drive.reference.want(command.candidate)

    def fresh(self, slot: int, generation: int) -> bool:
        return True

    async def vouch(self, slot: int, generation: int) -> bool:
        return True


_LATE: ContextVar[Late | None] = ContextVar("late", default=None)


class SlowView(RedisView):
    """A view whose answers from Redis are late if the schedule says so."""

    async def _read(self, key: ChatKey, at: int, step: int, wanted: int, *, skipped: int = 0) -> _Hot:
        hot = await super()._read(key, at, step, wanted, skipped=skipped)
        late = _LATE.get()
        if late is not None:
            await late.wait()
        return hot

    def _open_later(self, key: ChatKey) -> None:
        """Do nothing, because the schedule says when a chat is opened."""

    async def slowly(self, late: Late, key: ChatKey, limit: int, before: int | None, after: int | None) -> MessagesRead:
        _LATE.set(late)
        return await self.messages(key, limit=limit, before=before, after=after)


class Api:
    """An API process with its own caches."""

    def __init__(self, drive: Drive) -> None:
        queue = cast(Any, Queue(drive))
        pages, store = Pages(LIMIT), cast(Any, drive.store)
        self.numbers = Numbers(drive.servers, store, queue, pages)
        self.view = SlowView(drive.servers, store, self.numbers, queue, Applications(), pages, queue)


class Said(NamedTuple):
    """A writer's report of a transaction, which is not sent yet."""

    commands: list[tuple[Post | Edit | Delete, Outcome]]
    position: Position


class Reading(NamedTuple):
    """A read that is under way. ``told`` is what clients knew when it began, ``live`` how often Redis had lost all."""

    task: asyncio.Task[Any]
    late: Late
    limit: int
    before: int | None
    after: int | None
    told: dict[int, int]
    live: int


class Drive:
    def __init__(self, client: RedisClient, seed: int, *, full: bool = True) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.may_be_full = full
        self.client = client
        self.servers = Servers([])
        self.servers.clients = [client]
        client.keys = Keys(1)
        self.chat = ChatKey(f"real{seed}", 1)
        self.store = KeptStore(copies=self.random.random() < 0.7)
        self.reference = Reference()
        self.queue: list[Queued] = []
        self.apis = [Api(self), Api(self)]
        self.stored = Stored(self.servers, cast(Any, self.store))
        self.trace: list[str] = []
        self.texts = 0
        self.full = False
        # Numbers and orders that were given but not sent; commands that were sent but not shown; those that were shown;
        # and reports of transactions that are not sent yet.
        self.given: list[tuple[Slot, Claim | None, str]] = []
        self.ordered: list[tuple[Edit | Delete, Message]] = []
        self.unshown: list[tuple[Post | Edit | Delete, bytes, told_by.MessagesRead]] = []
        self.shown: list[tuple[Post | Edit | Delete, bytes, told_by.MessagesRead]] = []
        self.said: list[Said] = []
        self.done: list[Post | Edit | Delete] = []
        self.aside: list[Post | Edit | Delete] = []
        self.troubled: set[int] = set()  # numbers of messages of which a command was ever set aside
        self.used: list[Claim] = []
        self.refreshing: tuple[asyncio.Task[None], Late, list[int], dict[int, Any], Position] | None = None
        self.opening: tuple[str, OpenChat, Opened, Position] | None = None
        self.reading: Reading | None = None
        # What clients know of each number: the order of the last acknowledged change, or -1 for a delete; and its text.
        self.told: dict[int, int] = {}
        self.owners: dict[int, str] = {}
        self.order_of: dict[str, tuple[int, int]] = {}  # the number and order of each text that was sent
        self.deletes: set[int] = set()  # numbers of messages for which a delete was sent
        self.lives = 0

    # The schedule ------------------------------------------------------------------------------------------------

    async def run(self, steps: int) -> None:
        await self.begin()
        words: list[tuple[int, Any]] = [
            (10, self.number),
            (2, self.release),
            (12, self.send),
            (7, self.order),
            (14, self.show),
            (1, self.show_again),
            (8, self.apply),
            (2, self.apply_again),
            (10, self.applied),
            (3, self.refresh),
            (1, self.drop),
            (2, self.read_slowly),
            (4, self.go_on_reading),
            (1, self.lose),
            (4, self.open),
            (6, self.go_on_opening),
            (1, self.fill),
            (1, self.retry),
            (1, self.more_shards),
        ]
        # Each schedule has its own frequent steps.
        weights = [weight * self.random.choice((0.3, 1, 1, 3)) for weight, _ in words]
        steps_of = [step for _, step in words]
        try:
            for _ in range(steps):
                (step,) = self.random.choices(steps_of, weights)
                await step()
                await self.look()
            await self.end()
        except (AssertionError, KeyError, NotFound, Unavailable) as error:
            told = "\n".join(self.trace[-60:])
            raise Wrong(f"seed {self.seed}: {type(error).__name__} {error}\n{told}") from error
        finally:
            await self._fill(False)
            for task in (self.refreshing and self.refreshing[0], self.reading and self.reading.task):
                if task:
                    task.cancel()
            await self._forget()

    async def begin(self) -> None:
        """Begin with a new chat. An earlier test may have left the note that its shard is drained."""
        await self.client.call("DEL", self.client.named().drained(0))
        await self.client.script("fresh", 3, *self._names(), await self._guard(), LIFETIME_MS)

    def note(self, text: str) -> None:
        self.trace.append(text)

    def _names(self) -> tuple[str, str]:
        names = self.client.named()
        return names.chat(self.chat), names.announced(self.chat)

    async def _guard(self) -> str:
        guard = self.client.named().guard(self.chat.token, f"guard{self.seed}")
        await self.client.call("SET", guard, 1)
        return guard

    async def _forget(self) -> None:
        names = self.client.named()
        keys = [names.idempotency(self.chat, claim.sender_id, claim.key) for claim in self.used]
        await self.client.call("DEL", *self._names(), names.old(self.chat), *keys)

    def _text(self) -> str:
        self.texts += 1
        return f"text {self.texts}"

    def _api(self) -> Api:
        return self.random.choice(self.apis)

    def _take(self, items: list[Any]) -> Any:
        """Take one of the items, most often the first."""
        at = 0 if self.random.random() < 0.6 else self.random.randrange(len(items))
        return items.pop(at)

    async def _refused(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Return whether Redis refused because it is full. Then nothing may have changed."""
        try:
            await work
        except Unavailable:
            return True
        return False

    # API processes -----------------------------------------------------------------------------------------------

    async def number(self) -> None:
        if not self.reference.open:
            return
        claim, text = None, self._text()
        if self.random.random() < 0.4:
            if self.used and self.random.random() < 0.4:
                claim = self.random.choice(self.used)
            else:
                claim = Claim(1, f"key {len(self.used)}", hashlib.sha256(text.encode()).digest())
        reserving = self._api().numbers.reserve(self.chat, 1000 + self.texts, claim)
        if self.full:
            assert await self._refused(reserving), "a full Redis gave a number"
            return
        found = await reserving
        if claim is not None:
            known = self.reference.keys.get(claim.key)
            stored = self.store.keys.get((1, claim.key))
            if claim not in self.used:
                self.used.append(claim)
                self.order_of[text] = 0, 0
                self.owners_of_keys[claim.key] = text, 1000 + self.texts
            text = self.owners_of_keys[claim.key][0]
            if known is not None and known.epoch == self.reference.epoch:
                if not known.told:
                    known.tries += 1
                self._same(found, Slot(1, known.epoch, known.number, known.at, known.told))
                if not known.told:
                    self.given.append((cast(Slot, found), claim, text))
                return
            if stored is not None:
                self._same(found, Posted(*stored))
                return
        epoch, number = self.reference.number()
        self._same(found, Slot(1, epoch, number, 1000 + self.texts))
        if claim is not None:
            self.reference.keys[claim.key] = Known(epoch, number, 1000 + self.texts, claim.body_hash)
        self.note(f"number {number} of epoch {epoch}, key {claim and claim.key}, {text}")
        self.given.append((cast(Slot, found), claim, text))

    @property
    def owners_of_keys(self) -> dict[str, tuple[str, int]]:
        return self.__dict__.setdefault("_owners_of_keys", {})  # type: ignore[no-any-return]

    async def release(self) -> None:
        if not self.given:
            return
        slot, claim, _ = self._take(self.given)
        self.note(f"release {slot.number} of epoch {slot.epoch}, key {claim and claim.key}")
        await self._api().numbers.release(self.chat, slot, claim)
        if not self.full or claim is None:
            self.reference.release(slot.epoch, slot.number, claim and claim.key)
        elif claim is not None and (known := self.reference.keys.get(claim.key)) is not None:
            del known  # a full Redis refuses, and nothing has changed

    async def send(self) -> None:
        if self.ordered and (not self.given or self.random.random() < 0.5):
            change, message = self._take(self.ordered)
            text = change.body if isinstance(change, Edit) else ""
            shown = told_by.MessagesRead(change.order, None)
            if isinstance(change, Edit):
                self.order_of[text] = change.number, change.order
                edited = Message(change.number, 1, "ref", "A", text, message.created_at, change.edited_at)
                shown = told_by.MessagesRead(change.order, edited)
            else:
                self.deletes.add(change.number)
            self.queue.append(change)
            self.unshown.append((change, change_entry(change, message), shown))
            self.note(f"send {type(change).__name__} {change.number} {place_of(change.order)} {text}")
            return
        if not self.given:
            return
        slot, claim, text = self._take(self.given)
        fields = slot.created_at, claim and claim.key, claim and claim.body_hash, slot.epoch
        if claim is None and self.used and self.random.random() < 0.1:
            # The same key again, under a number that no client gets.
            other = self.random.choice(self.used)
            if (1, other.key) in self.store.keys:
                keyed = other.key, other.body_hash, slot.epoch
                doubt = Post(self.chat, slot.number, 1, "A", text, slot.created_at, *keyed, sender_ref="ref")
                self.queue.append(doubt)
                self.note(f"send another post of {other.key}, {slot.number}")
                return
        post = Post(self.chat, slot.number, 1, "A", text, *fields, sender_ref="ref")
        self.order_of[text] = slot.number, 0
        if claim is None and self.random.random() < 0.05:
            self.store.faulty.add(text)
        self.queue.append(post)
        message = Message(slot.number, 1, "ref", "A", text, slot.created_at)
        self.unshown.append((post, post_entry(post), told_by.MessagesRead(0, message)))
        self.note(f"send Post {slot.number} of epoch {slot.epoch} {text}")

    async def order(self) -> None:
        if not self.reference.open:
            return
        known = sorted(self.told) or [1]
        number = self.random.choice(known[-25:] if self.random.random() < 0.7 else known)
        if self.random.random() < 0.1:
            number = self.random.randint(1, self.reference.last + 2)
        ordering = self._api().numbers.order(self.chat, number)
        if self.full:
            expected: Any = self._ordered_when_full(number)
        else:
            expected = self.reference.order(number)
        message: Message | None = None
        if isinstance(expected, tuple):
            order, shown = expected
            if shown is not None:
                message = shown.message
            else:
                row = self.store.stored(self.reference.position).get(number)
                message = row and row.message
        try:
            found = await ordering
        except NotFound:
            assert expected == "missing" or message is None, f"{number} is not found"
            return
        except Unavailable:
            assert expected == "full", f"{number} has no order"
            return
        assert isinstance(expected, tuple), f"{number} was {expected}"
        assert message is not None, f"{number} is found"
        self._same((found.order, found.message), (order, message))
        change: Edit | Delete = Delete(self.chat, number, 1, True, order=found.order)
        if self.random.random() < 0.65:
            change = Edit(self.chat, number, 1, self._text(), 5000 + self.texts, order=found.order)
        self.note(f"order {type(change).__name__} {number} {place_of(found.order)}")
        self.ordered.append((change, found.message))

    def _ordered_when_full(self, number: int) -> str:
        reference = self.reference
        place, notes = reference.place, {key: set(value) for key, value in reference.notes.items()}
        found = reference.order(number)
        reference.place, reference.notes = place, notes
        return found if isinstance(found, str) else "full"

    async def show(self) -> None:
        some = [self._take(self.unshown) for _ in range(min(len(self.unshown), self.random.choice((1, 1, 1, 2, 4))))]
        await self._show(some)

    async def show_again(self) -> None:
        if self.shown:
            await self._show([self.random.choice(self.shown)])

    async def _show(self, some: list[tuple[Post | Edit | Delete, bytes, told_by.MessagesRead]]) -> None:
        if not some:
            return
        if self.random.random() < 0.05:
            self.note(f"never shown: {[each.number for each, _, _ in some]}")
            return
        showing = self._api().numbers.show(0, [Confirmed(command, 1, entry) for command, entry, _ in some])
        try:
            results = await showing
        except Unavailable:
            assert self.full, "show was refused"
            self.note(f"refused to show {[each.number for each, _, _ in some]}")
            return
        if self.full:  # there was nothing to write, or the epoch is over
            for (command, _, shown), result in zip(some, results, strict=True):
                self._same(self.reference.show(command, shown), result)
        else:
            self._same([self.reference.show(command, shown) for command, _, shown in some], results)
        for (command, entry, shown), result in zip(some, results, strict=True):
            number = command.number
            self.note(f"show {type(command).__name__} {number} {shown.order and place_of(shown.order)}: {result}")
            self.shown = [*self.shown[-20:], (command, entry, shown)]
            if not result:
                continue
            if isinstance(command, Post):
                assert self.owners.setdefault(number, command.body) == command.body, f"{number} was told twice"
                self.told.setdefault(number, 0)
            elif isinstance(command, Delete):
                self.told[number] = -1
            elif self.told.get(number, 0) >= 0:
                self.told[number] = max(self.told.get(number, 0), command.order)

    # Writers -----------------------------------------------------------------------------------------------------

    async def apply(self) -> None:
        if not self.queue or (self.opening is not None and self.random.random() < 0.7):
            return
        if isinstance(self.queue[0], OpenChat):
            marker = self.queue.pop(0)
            assert isinstance(marker, OpenChat)
            position, (opened,) = self.store.transaction([marker])
            assert isinstance(opened, Opened)
            self.opening = "seed", marker, opened, position
            self.note(f"(a) {marker.candidate}: epoch {opened.epoch}")
            return
        many = self.random.choice((1, 2, 5, 12, 30))
        taken: list[Post | Edit | Delete] = []
        while self.queue and len(taken) < many and not isinstance(self.queue[0], OpenChat):
            taken.append(cast(Any, self.queue.pop(0)))
        position, outcomes = self.store.transaction(taken)
        commands = list(zip(taken, outcomes, strict=True))
        self.note(f"store {[(type(each).__name__, each.number, outcome) for each, outcome in commands]}")
        for command, outcome in commands:
            if isinstance(outcome, Failed):
                self.aside.append(command)
                self.troubled.add(command.number)
            elif isinstance(outcome, Straggler) and command.number in self.troubled:
                self.told.pop(command.number, None)
        self.done += taken
        self.said.append(Said(commands, position))

    async def apply_again(self) -> None:
        """Deliver what was applied to another writer, which skips it."""
        if not self.done:
            return
        at = max(0, len(self.done) - self.random.choice((1, 3, 10)))
        behind = self.done[at:]
        if self.random.random() < 0.3:
            behind = behind[: self.random.randint(1, len(behind))]
        position, _ = self.store.transaction([])
        self.note(f"skip {[(type(each).__name__, each.number) for each in behind]}")
        self.said.append(Said([(each, AppliedBefore()) for each in behind], position))

    async def applied(self) -> None:
        if not self.said or self.refreshing is not None:
            return
        said = self._take(self.said)
        self.note(f"applied {[(type(each).__name__, each.number) for each, _ in said.commands]} at {said.position}")
        before = [each for each, outcome in said.commands if isinstance(outcome, AppliedBefore)]
        again = sorted({each.number for each in before})
        late = Late()
        self.store.late = None if again else late
        self.store.asked.clear()
        task = asyncio.ensure_future(self.stored.stored(self.chat, said.commands, said.position))
        come = asyncio.ensure_future(late.come.wait())
        await asyncio.wait((task, come), return_when=asyncio.FIRST_COMPLETED)
        come.cancel()
        self.store.late = None
        if again:
            await task
            self._now_again(before, again, said.position)
            return
        words = [word for command, outcome in said.commands if (word := words_of(command, outcome)) is not None]
        unknown = await self._now_applied(words, said)
        self._same(self.store.asked, [unknown] if unknown else [])
        if unknown:
            found = {number: row for number in unknown if (row := self.store.row(number)) is not None}
            self.refreshing = task, late, unknown, found, said.position
        else:
            await task

    def _now_again(self, before: list[Post | Edit | Delete], again: list[int], position: Position) -> None:
        rows = {number: row for number in again if (row := self.store.row(number)) is not None}
        words = told_by.words_again(before, rows, self.store.told_aside)
        self.reference.applied([word for word in words if word.kind == "a"], position)
        now, rest = position._replace(transactions=self.store.applied), [word for word in words if word.kind != "a"]
        unknown = self.reference.applied(rest, now) if rest else []
        self._same(self.store.asked, [asked for asked in (again, unknown) if asked])
        if unknown:
            found = {number: row for number in unknown if (row := self.store.row(number)) is not None}
            self.reference.refreshed(unknown, found, now)
        self.reference.applied([], position)

    async def _now_applied(self, words: list[Words], said: Said) -> list[int]:
        for command, outcome in said.commands:
            if isinstance(command, Post) and command.key is not None and (1, command.key) in self.store.keys:
                known = self.reference.keys.get(command.key)
                if known is not None and known.number == self.store.keys[1, command.key][0]:
                    known.short = known.short or not isinstance(outcome, AppliedBefore | Failed | Straggler)
        return self.reference.applied(words, said.position)

    async def refresh(self) -> None:
        if self.refreshing is None:
            return
        (task, late, numbers, found, position), self.refreshing = self.refreshing, None
        for future in late.waiting:
            future.set_result(None)
        await task
        self.note(f"refreshed {numbers}")
        self.reference.refreshed(numbers, found, position)

    async def drop(self) -> None:
        """Drop a report, as if the writer had died or could not reach Redis."""
        if self.said and self.random.random() < 0.5:
            said = self._take(self.said)
            self.note(f"never said: {[(type(each).__name__, each.number) for each, _ in said.commands]}")

    async def retry(self) -> None:
        """Send a command that was set aside again, as an operator does, under the number that was kept for it.

        Wait while a change of the same message is under way, which would not find the message.
        """
        under_way = {change.number for change, _ in self.ordered}
        under_way |= {each.number for each in self.queue if isinstance(each, Post | Edit | Delete)}
        if self.aside and self.aside[0].number not in under_way:
            command = self.aside.pop(0)
            if isinstance(command, Post):
                self.store.faulty.discard(command.body)
                self.store.aside.discard(command.number)
                command = replace(command, epoch=0)
            self.queue.append(command)
            self.store.aside_now([each.number for each in self.aside])
            self.note(f"retry {type(command).__name__} {command.number}")

    async def more_shards(self) -> None:
        if self.random.random() < 0.1:
            self.store.shards += 1
            self.store.applied = 0
            self.said.clear()  # all writers have restarted
            self.note(f"{self.store.shards} shards")

    # Opening -----------------------------------------------------------------------------------------------------

    async def lose(self) -> None:
        if self.random.random() < 0.3:
            self.note("everything is lost")
            await self._forget()
            self.reference.lost()
            # What was set aside comes back only when an operator sends it again.
            for number in self.troubled:
                self.told.pop(number, None)
            self.lives += 1

    async def open(self) -> None:
        if self.reference.open:
            return
        opening = self._api().numbers.open(self.chat)
        if await self._refused(opening):
            assert self.full, "an opening was refused"
        self.note("announced")

    async def go_on_opening(self) -> None:
        if self.opening is None:
            return
        step, marker, opened, position = self.opening
        self.opening = None
        if step == "seed":
            seeded = await self.stored.seed(marker, opened, position)
            self.note(f"(b) seed {marker.candidate}, epoch {opened.epoch}: {seeded}")
            self._same(seeded, self.reference.seed(marker.candidate, opened, position))
            if seeded:
                self.opening = "set", marker, opened, position
        elif step == "set":
            lives = self.store.set_live(opened.epoch)
            self.note(f"(c) epoch {opened.epoch}: {lives}")
            if lives:
                self.opening = "live", marker, opened, position
        else:
            if await self._refused(self.stored.live(marker, opened.epoch)):
                assert self.full, "live was refused"
                return
            self.note(f"(d) epoch {opened.epoch}")
            for number in self.troubled:  # the seed lacks what is set aside
                self.told.pop(number, None)
            self.reference.go_live(opened.epoch)

    # A full Redis ------------------------------------------------------------------------------------------------

    async def fill(self) -> None:
        if self.may_be_full:
            await self._fill(not self.full)

    async def _fill(self, full: bool) -> None:
        if full != self.full:
            self.full = full
            self.note("Redis is full" if full else "Redis is full no more")
            await self.client.call("CONFIG", "SET", "maxmemory", 1 if full else 0)
            await self.client._look()

    # Reading -----------------------------------------------------------------------------------------------------

    def _same(self, found: Any, expected: Any) -> None:
        if found != expected:
            raise Wrong(f"{found} instead of {expected}")

    async def look(self) -> None:
        """Check that every kind of read agrees with the reference, and with what clients know."""
        stored = self.store.stored(self.reference.position if self.reference.open else None)
        view = self.reference.view(stored)
        expected = [view[number] for number in sorted(view, reverse=True)]
        reader = self._api().view
        shown = await reader.messages(self.chat, limit=1000)
        self._same(shown.messages, expected)
        self._same(shown.lag, not self.reference.open)
        if self.reference.open:
            self._kept(shown.messages, self.told)
        bodies = [message.body for message in expected[:LIMIT]]
        for api in self.apis:
            if self.random.random() < 0.5:
                page = await api.view.newest(CALLER, self.chat, LIMIT)
                self._same([message["body"] for message in json.loads(page.body)], bodies)
                self._same(page.more, len(expected) > LIMIT)
        top = max(view, default=0)
        at, limit = self.random.randint(1, top + 2), self.random.randint(1, 9)
        kind = self.random.randrange(4)
        if kind == 0:
            found = (await reader.messages(self.chat, limit=limit, before=at)).messages
            self._same(found, [message for message in expected if message.number < at][:limit])
        elif kind == 1:
            found = (await reader.messages(self.chat, limit=limit, after=at)).messages
            self._same(found, [message for message in expected if message.number > at][-limit:])
        elif kind == 2:
            offset = self.random.randint(0, len(expected))
            found = (await reader.messages(self.chat, limit=limit, offset=offset)).messages
            self._same(found, expected[offset : offset + limit])
        else:
            numbers = sorted({at, *(self.random.randint(1, top + 2) for _ in range(4))})
            found = (await reader.numbered(self.chat, numbers)).messages
            self._same({message.number: message for message in found}, {n: view[n] for n in numbers if n in view})
        if not self.opening and self.random.random() < 0.1:
            await self._lifetimes()

    def _kept(self, messages: list[Message], told: dict[int, int], low: int = 0, high: int = 1 << 60) -> None:
        """Check that what clients know is there, independently of the reference."""
        seen = {message.number: message for message in messages}
        assert [message.number for message in messages] == sorted(seen, reverse=True), "a page is out of order"
        for number, order in told.items():
            if not low < number < high:
                continue
            message = seen.get(number)
            if order < 0:
                assert message is None, f"{number} is back"
            elif message is None:
                assert number in self.deletes, f"{number} is lost"
            else:
                of, changed = self.order_of[message.body]
                assert of == number, f"{number} has the text of {of}"
                assert changed >= order, f"{number} shows change {place_of(changed)} and not {place_of(order)}"

    async def _lifetimes(self) -> None:
        """Check that entries that are not stored don't expire before the others."""
        names = self.client.named()
        left, beside = await asyncio.gather(
            self.client.call("PTTL", names.chat(self.chat)), self.client.call("PTTL", names.old(self.chat))
        )
        if self.reference.beside:
            assert beside >= left - 600_000, f"the old entries have {beside} ms, the chat {left}"
        for claim in self.used[-3:]:
            known = self.reference.keys.get(claim.key)
            if known is not None:
                left = await self.client.call("PTTL", names.idempotency(self.chat, 1, claim.key))
                most = STORED_KEY_MS if known.short else KEY_MS
                assert most - 600_000 < left <= most, f"{claim.key} has {left} ms"

    async def read_slowly(self) -> None:
        if self.reading is not None or not self.reference.open:
            return
        view = self._api().view
        late = Late()
        before, after = None, None
        if self.random.random() < 0.4:
            after = self.random.randint(0, self.reference.last)
        elif self.random.random() < 0.5:
            before = self.random.randint(1, self.reference.last + 1)
        limit = self.random.choice((1, 3, 8, 30, 100))
        task = asyncio.ensure_future(view.slowly(late, self.chat, limit, before, after))
        self.reading = Reading(task, late, limit, before, after, dict(self.told), self.lives)
        self.note(f"a slow read, {limit} before {before}, after {after}")
        await self._reading_comes()

    async def _reading_comes(self) -> None:
        assert self.reading is not None
        come = asyncio.ensure_future(self.reading.late.come.wait())
        await asyncio.wait((self.reading.task, come), return_when=asyncio.FIRST_COMPLETED)
        come.cancel()
        self.reading.late.come.clear()

    async def go_on_reading(self) -> None:
        if self.reading is None:
            return
        reading = self.reading
        if not reading.task.done():
            waiting, reading.late.waiting = reading.late.waiting, []
            for future in waiting:
                future.set_result(None)
            await self._reading_comes()
            if not reading.task.done():
                return
        self.reading = None
        shown = reading.task.result()
        messages: list[Message] = shown.messages
        self.note(f"the slow read has {[message.number for message in messages]}")
        if reading.live != self.lives or shown.lag:
            return
        low, high = 0, 1 << 60
        if reading.after is not None:
            low = reading.after
            if len(messages) == reading.limit:
                high = messages[0].number + 1
        else:
            high = reading.before or high
            if len(messages) == reading.limit:
                low = messages[-1].number - 1
        self._kept(messages, reading.told, low, high)

    async def end(self) -> None:
        """Let everything arrive, and check that the store has what was acknowledged and Redis shows the same."""
        await self._fill(False)
        while self.reading is not None:
            await self.go_on_reading()
        for _ in range(1000):
            if not (self.queue or self.said or self.refreshing or self.opening):
                if self.reference.open:
                    break
                await self.open()
            await self.refresh()
            await self.apply()
            await self.applied()
            await self.go_on_opening()
            await self.look()
        assert self.reference.open, "it does not come to an end"
        rows = self.store.stored()
        found = [rows[number].message for number in sorted(rows, reverse=True)]
        faulty = {command.number for command in self.aside}
        self._kept(found, {number: order for number, order in self.told.items() if number not in faulty})
