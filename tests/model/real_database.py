"""Drive the real store's ``apply`` in a real database through a schedule of deliveries, a function of its seed. There
are two writers, either of which may hold what the other has applied, lost deliveries, commands at fault, and openings.
A reference applies each publisher's deliveries 1, 2, 3 … once, in the order in which they came.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from hubbub.chat.errors import NotFound
from hubbub.chat.model import ChatKey
from hubbub.cluster.database import Database
from hubbub.cluster.deliveries import Deliveries
from hubbub.cluster.protocol import (
    Delete,
    Delivery,
    Edit,
    Failed,
    OpenChat,
    Opened,
    Post,
    Queued,
    Repeated,
    SequenceGap,
    Straggler,
    encode,
    order_of,
    place_of,
)
from hubbub.cluster.sequence_gaps import SequenceGaps, ShardStopped

SHARDS = 4


class Stored(NamedTuple):
    sender: int
    body: str
    changed: int


class Tables:
    """The reference: the rows of one chat and of its shard."""

    def __init__(self) -> None:
        self.messages: dict[int, Stored] = {}
        self.keys: dict[tuple[int, str], tuple[int, bytes]] = {}
        self.aside: list[tuple[bytes, bool]] = []
        self.told_aside: set[int] = set()
        self.publishers: dict[str, int] = {}
        self.last_number = 0
        self.epoch = self.live_epoch = 1
        self.opening = 0

    def apply(self, command: Queued) -> Any:
        """Apply a command and return its outcome. The words of a reason do not count."""
        if isinstance(command, OpenChat):
            self.epoch += 1
            self.opening = self.epoch
            return Opened(self.epoch, max(self.last_number, *self.messages, 0), [])
        assert isinstance(command, Post | Edit | Delete)
        opening, self.opening = self.opening, 0
        outcome = self._post(command) if isinstance(command, Post) else self._change(command)
        if outcome == "at fault":  # it has no effect
            self.opening = opening
            outcome = Failed("")
        if isinstance(outcome, Failed | Straggler):
            self.set_aside(command, acknowledged=isinstance(outcome, Failed))
        return outcome

    def set_aside(self, command: Post | Edit | Delete, *, acknowledged: bool) -> None:
        self.aside.append((encode(Delivery("", 0, [command])), acknowledged))
        if acknowledged:
            self.told_aside.add(command.number)
        if isinstance(command, Post) and acknowledged:
            self.last_number = max(self.last_number, command.number)

    def _post(self, post: Post) -> Any:
        known = self.keys.get((post.sender_id, post.key or ""))
        if known is not None:
            return Repeated(known[0]) if known[1] == post.body_hash else Failed("")
        if post.epoch and post.epoch < self.live_epoch:
            return Straggler(self.live_epoch)
        if post.number in self.messages or len(post.sender_name) > 255:
            return "at fault"
        self.messages[post.number] = Stored(post.sender_id, post.body, 0)
        if post.key is not None:
            self.keys[post.sender_id, post.key] = post.number, post.body_hash or b""
        return post.number

    def _change(self, change: Edit | Delete) -> Any:
        if place_of(change.order)[0] < self.live_epoch and change.order:
            return Straggler(self.live_epoch)
        found = self.messages.get(change.number)
        by = change.editor_id if isinstance(change, Edit) else change.deleter_id
        anybody = isinstance(change, Delete) and change.any_sender
        if found is None or not (anybody or found.sender == by):
            return Failed("") if change.number in self.told_aside else NotFound("")
        if isinstance(change, Delete):
            del self.messages[change.number]
            self.last_number = max(self.last_number, change.number)
        elif change.order > found.changed or not change.order:
            body, order = change.body, max(change.order, found.changed)
            self.messages[change.number] = Stored(found.sender, body, order)
        return None


class Sequence:
    """A seeded queue of deliveries by some publishers, with every kind of wrong command."""

    def __init__(self, draw: random.Random, chat: ChatKey, count: int, *, markers: bool) -> None:
        self._draw = draw
        self._chat = chat
        self._numbers = 0
        self._places = 0
        self._epoch = 1
        self._keys = 0
        names = [f"{chat.token}.{name}" for name in range(draw.choice((2, 3)))]
        sent = dict.fromkeys(names, 0)
        self.deliveries: list[Delivery] = []
        for _ in range(count):
            name = draw.choice(names)
            sent[name] += 1
            commands: list[Queued]
            if markers and draw.random() < 0.08:
                commands = [OpenChat(chat, f"candidate {len(self.deliveries)}", 1)]
                self._epoch += (
                    draw.random() < 0.8
                )  # the process that numbers uses the new epoch, or does not know it yet
            else:
                commands = [self._command() for _ in range(draw.choice((1, 1, 2, 4, 9)))]
            confirmed = sent[name] - 1 if draw.random() < 0.8 else draw.randint(0, sent[name] - 1)
            self.deliveries.append(Delivery(name, sent[name], commands, confirmed))

    def _command(self) -> Queued:
        draw = self._draw
        kind = draw.random()
        if kind < 0.6 or not self._numbers:
            self._numbers += 1
            number = self._numbers if draw.random() < 0.93 else draw.randint(1, self._numbers)
            key = body_hash = None
            if draw.random() < 0.3:
                self._keys += draw.random() < 0.7
                key, body_hash = f"key {self._keys}", b"h" if draw.random() < 0.9 else b"another"
            name = "A" if draw.random() < 0.97 else "A" * 300
            body = f"text {number} {draw.random()}"
            return Post(self._chat, number, draw.choice((1, 2)), name, body, number, key, body_hash, self._old_epoch())
        number = max(1, self._numbers - int(draw.expovariate(0.2)))
        self._places += 1
        order = order_of(self._old_epoch(), self._places + draw.choice((0, 0, 0, -3, 4))) if draw.random() < 0.95 else 0
        by = draw.choice((1, 2))
        if kind < 0.85:
            return Edit(self._chat, number, by, f"changed {draw.random()}", 7, order=max(0, order))
        return Delete(self._chat, number, by, draw.random() < 0.6, order=max(0, order))

    def _old_epoch(self) -> int:
        return self._epoch if self._draw.random() < 0.9 else self._draw.randint(1, self._epoch)


class Writer:
    """A writer that consumes the queue. It holds the deliveries ``held``, which begin at the place ``at``."""

    def __init__(self, database: Database) -> None:
        self.deliveries = Deliveries(database, set(), note_changes=True)
        self.at = 0
        self.held: list[Delivery] = []


class Applying:
    """One schedule, with a shard and a chat of its own."""

    def __init__(self, databases: list[Database], seed: int, shard: int, chat: ChatKey, deliveries: int) -> None:
        self.draw = random.Random(seed)
        self.shard = shard
        self.chat = chat
        self.queue = Sequence(self.draw, chat, deliveries, markers=True).deliveries
        self.acknowledged = 0
        self.writers = [Writer(database) for database in databases]
        self.active = self.writers[0]
        self.gaps = SequenceGaps(databases[0])
        self.tables = Tables()
        self.openings: list[tuple[OpenChat, int]] = []
        self.decided: dict[tuple[str, int], str] = {}
        self.transactions = 0

    def run(self) -> int:
        """Run the schedule and return the number of steps."""
        steps = 0
        while self.acknowledged < len(self.queue):
            steps += 1
            kind = self.draw.random()
            if kind < 0.1:  # the broker gives the shard to a writer, which begins behind what is acknowledged
                self.active = self.draw.choice(self.writers)
                self.active.held = []
            elif kind < 0.2 and self.openings:
                marker, epoch = self.openings.pop(self.draw.randrange(len(self.openings)))
                lives = self.draw.choice(self.writers).deliveries.set_live(marker, epoch, 0)
                assert lives == (self.tables.opening == epoch), f"epoch {epoch} lives: {lives}"
                if lives:
                    self.tables.live_epoch, self.tables.opening = epoch, 0
            elif kind < 0.27:
                idle = self.draw.choice(self.writers)  # a frozen one continues with what it holds
                if idle.held:
                    self._apply(idle, _together(idle.held[: self.draw.randint(1, len(idle.held))]))
            elif kind < 0.31:
                self._lose_one()
            elif kind < 0.36:
                self._come_too_early()
            else:
                self._take()
        return steps

    def _take(self) -> None:
        writer = self.active
        if not writer.held:
            writer.at = self.acknowledged
            writer.held = self.queue[writer.at : writer.at + 12]
        many = self.draw.choice((1, 2, 5))
        batch = _together(writer.held[:many])
        self._apply(writer, batch)
        if self.draw.random() < 0.8:  # otherwise it dies before it acknowledges
            writer.at += len(batch)
            writer.held = writer.held[len(batch) :]
            self.acknowledged = max(self.acknowledged, writer.at)
        else:
            writer.held = []

    def _apply(self, writer: Writer, batch: list[Delivery]) -> None:
        expected = self._expected(batch)
        while True:
            try:
                applied = writer.deliveries.apply(self.shard, SHARDS, batch)
            except ShardStopped:
                assert expected == "stopped", f"the shard stopped instead of {expected}"
                self.decided = {key: "accepted" if of == "stopped" else of for key, of in self.decided.items()}
                assert {(each.publisher, each.expected) for each in self.gaps.stopped()} <= self.decided.keys()
                self.gaps.accept()
                expected = self._expected(batch)
                continue
            except SequenceGap as early:
                gap = early
            else:
                break
            assert expected == (gap.publisher, gap.expected), f"{gap} instead of {expected}"
            self.decided[gap.publisher, gap.expected] = self._state(batch, gap)
            self.gaps.decide(gap, batch)
            expected = self._expected(batch)
        assert isinstance(expected, list), f"{expected} was passed over"
        self.transactions += 1
        found = [None if each is None else [_plain(outcome) for outcome in each] for each in applied.outcomes]
        assert found == expected, f"{found} instead of {expected}"
        assert applied.position == (SHARDS, self.shard, self.transactions)
        for delivery, outcomes in zip(batch, applied.outcomes, strict=True):
            for command, outcome in zip(delivery.commands, outcomes or [], strict=bool(outcomes)):
                if isinstance(command, OpenChat) and isinstance(outcome, Opened):
                    self.openings.append((command, outcome.epoch))
                    rows = [(m.number, (m.sender_id, m.body, order)) for m, order in outcome.newest]
                    newest = sorted(self.tables.messages.items(), reverse=True)[:101]
                    assert rows == [(number, tuple(row)) for number, row in newest]

    @staticmethod
    def _state(batch: list[Delivery], gap: SequenceGap) -> str:
        behind = [each for each in batch if each.publisher == gap.publisher and each.sequence > gap.expected]
        return "stopped" if any(each.confirmed >= gap.expected for each in behind) else "orphaned"

    def _expected(self, batch: list[Delivery]) -> list[Any] | tuple[str, int] | str:
        """Apply the batch to the reference and return the outcomes. If there is a gap, or the shard stops, return that
        and apply nothing.
        """
        last = dict(self.tables.publishers)
        new: list[str] = []
        for delivery in batch:
            expected = last.get(delivery.publisher, 0) + 1
            state = "skipped" if delivery.sequence < expected else "applied"
            if delivery.sequence > expected:
                gap = delivery.publisher, expected
                if gap not in self.decided:
                    return gap
                state = self.decided[gap]
                if state == "stopped" or (state == "orphaned" and delivery.confirmed >= expected):
                    self.decided[gap] = "stopped"
                    return "stopped"
            if state in ("applied", "accepted"):
                last[delivery.publisher] = delivery.sequence
            new.append(state)
        outcomes: list[Any] = []
        for delivery, state in zip(batch, new, strict=True):
            self.tables.publishers.setdefault(delivery.publisher, 0)
            if state in ("applied", "accepted"):
                outcomes.append([_plain(self.tables.apply(command)) for command in delivery.commands])
            else:
                outcomes.append(None)
        for delivery, state in zip(batch, new, strict=True):
            if state == "orphaned":
                for command in delivery.commands:
                    if isinstance(command, Post | Edit | Delete):
                        self.tables.set_aside(command, acknowledged=False)
        self.tables.publishers |= {name: sequence for name, sequence in last.items() if sequence}
        return outcomes

    def _lose_one(self) -> None:
        """Let the queue lose a delivery that no writer has applied yet."""
        behind = self.draw.randint(self.acknowledged, len(self.queue) - 1)
        lost = self.queue[behind]
        if self.draw.random() < 0.3 and lost.sequence > self.tables.publishers.get(lost.publisher, 0):
            del self.queue[behind]
            for writer in self.writers:
                writer.held = []

    def _come_too_early(self) -> None:
        """Deliver before an earlier delivery: nothing may be applied or noted."""
        late = self.queue[self.draw.randint(self.acknowledged, len(self.queue) - 1)]
        expected = self.tables.publishers.get(late.publisher, 0) + 1
        if late.sequence <= expected or (late.publisher, expected) in self.decided:
            return
        found: tuple[str, int, int] | None = None
        try:
            self.draw.choice(self.writers).deliveries.apply(self.shard, SHARDS, [late])
        except SequenceGap as gap:
            found = gap.publisher, gap.expected, gap.found
        assert found == (late.publisher, expected, late.sequence)


def _together(batch: list[Delivery]) -> list[Delivery]:
    """Return the commands up to a marker, or a marker alone, as a writer applies them."""
    at = next((at for at, each in enumerate(batch) if isinstance(each.commands[0], OpenChat)), len(batch))
    return batch[: max(1, at)]


def _plain(outcome: Any) -> Any:
    """Return an outcome without the words of its reason."""
    if isinstance(outcome, Failed):
        return "failed"
    if isinstance(outcome, NotFound):
        return "not found"
    if isinstance(outcome, Opened):
        return "opened", outcome.epoch, outcome.last_number
    return outcome


def compare(database: Database, shard: int, chat: ChatKey, tables: Tables) -> None:
    """Check that the tables have the same content as the reference."""

    def work(cursor: Any) -> list[Any]:
        found = []
        for sql, values in (
            ("SELECT number, sender_id, body, changed FROM messages WHERE token = %s AND chat = %s", chat),
            ("SELECT sender_id, `key`, number, body_hash FROM idempotency_keys WHERE token = %s AND chat = %s", chat),
            ("SELECT command, acknowledged FROM set_aside WHERE shard = %s ORDER BY id", (shard,)),
            ("SELECT publisher, sequence FROM publishers WHERE shard = %s", (shard,)),
            ("SELECT last_number, epoch, live_epoch, opening FROM chats WHERE token = %s AND number = %s", chat),
        ):
            cursor.execute(sql, values)
            found.append(list(cursor.fetchall()))
        return found

    messages, keys, aside, publishers, chats = database.run(work, commit=False)
    assert {row[0]: Stored(*row[1:]) for row in messages} == tables.messages
    assert {(sender, key): (number, bytes(hashed)) for sender, key, number, hashed in keys} == tables.keys
    assert [(bytes(command), bool(acknowledged)) for command, acknowledged in aside] == tables.aside
    assert dict(publishers) == tables.publishers
    assert chats == [(tables.last_number, tables.epoch, tables.live_epoch, tables.opening)]
