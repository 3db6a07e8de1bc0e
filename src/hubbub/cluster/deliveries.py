"""Applies the queue's deliveries in order, each command once. It implements rules 1, 5, 6 and 9.

Each transaction locks the shard's row first. So if two writers both believe that they have the shard, one waits, and
then finds its deliveries applied. Commands that can't be stored are set aside in the same transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pymysql

from hubbub.chat.commands import Outcome
from hubbub.chat.errors import NotFound
from hubbub.chat.model import ChatKey, Message
from hubbub.cluster.database import AtFault, Database, marks, meaning
from hubbub.cluster.dead_letters import insert
from hubbub.cluster.outbox import mark_of
from hubbub.cluster.protocol import (
    Applied,
    Barrier,
    Delete,
    Delivery,
    Edit,
    Failed,
    Gone,
    OpenChat,
    Opened,
    Position,
    Post,
    Queued,
    Repeated,
    Straggler,
    encode,
    place_of,
    retried,
)
from hubbub.cluster.sequence_gaps import SequenceGaps, ShardStopped, decided

log = logging.getLogger("hubbub.store")

_STATEMENT_BYTES = 4 * 1024 * 1024  # a server's max_allowed_packet is 16 MiB or more
_ROWS_PER_INSERT = 500
_NEWEST = 101

# The sender's public id and current name are subqueries, so that they are looked up only for the rows returned, and not
# for those that a page skips.
_SENDER_REF = "COALESCE((SELECT ref FROM users WHERE id = sender_id), '')"
_SENDER_NAME = "COALESCE((SELECT name FROM users WHERE id = sender_id), sender_name)"
_COLUMNS = f"number, sender_id, {_SENDER_REF}, {_SENDER_NAME}, body, created_at, edited_at"
_OF_CHAT = "FROM messages WHERE token = %s AND chat = %s"
MESSAGE = f"SELECT {_COLUMNS} {_OF_CHAT}"
CHANGED_MESSAGE = f"SELECT {_COLUMNS}, changed {_OF_CHAT}"  # with the order of its last change


class _Chat:
    """A chat's row in the current transaction."""

    __slots__ = ("counted_to", "deleted", "live_epoch", "opening")

    def __init__(self, counted_to: int, live_epoch: int, opening: int, deleted: bool) -> None:
        self.counted_to = counted_to
        self.deleted = deleted
        self.live_epoch = live_epoch
        self.opening = opening


class _Batch:
    """The state of commands that are applied together: the cursor, the chats and keys they touch, the rows that wait
    for the next INSERT, and the posts that will be set aside."""

    def __init__(self, cursor: Any) -> None:
        self.cursor = cursor
        self.chats: dict[ChatKey, _Chat] = {}
        self.posted: dict[tuple[ChatKey, int, str], tuple[int, bytes]] = {}
        self.rows: list[Post] = []
        self.bytes = 0
        self.failed: set[tuple[ChatKey, int]] = set()


class Deliveries:
    """Applies deliveries to the database. ``uncounted`` gets the chats with messages that ``Store.count_messages`` has
    not added to their count yet; with ``note_changes`` the changed messages are noted for the search index."""

    def __init__(self, database: Database, uncounted: set[ChatKey], *, note_changes: bool) -> None:
        self._database = database
        self._uncounted = uncounted
        self._note_changes = note_changes

    def apply(self, shard: int, shards: int, deliveries: Sequence[Delivery]) -> Applied:
        """Apply a shard's deliveries in order in one transaction, each once, however often it is delivered. Blocks.

        Raises:
            SequenceGap: an earlier delivery of a publisher has not been applied; nothing was applied.
            ShardStopped: the shard waits for an operator; nothing was applied.
            Unavailable: nothing was applied, or all of it was and the answer got lost. A retry is right in both cases.
        """
        try:
            return self._database.run(lambda cursor: self._apply(cursor, shard, shards, deliveries))
        except ShardStopped as stopped:
            SequenceGaps(self._database).stop(stopped)
            raise

    def _apply(self, cursor: Any, shard: int, shards: int, deliveries: Sequence[Delivery]) -> Applied:
        cursor.execute(
            "INSERT INTO shards (shard, position) VALUES (%s, 1) ON DUPLICATE KEY UPDATE position = position + 1",
            (shard,),
        )
        cursor.execute("SELECT position FROM shards WHERE shard = %s", (shard,))
        position = Position(shards, shard, cursor.fetchone()[0])
        publishers = sorted({delivery.publisher for delivery in deliveries})
        cursor.execute(
            f"SELECT publisher, sequence FROM publishers WHERE shard = %s AND publisher IN ({marks(publishers)})",
            (shard, *publishers),
        )
        last: dict[str, int] = dict(cursor.fetchall())
        orphans: list[Delivery] = []
        fresh = []
        for delivery in deliveries:
            expected = last.setdefault(delivery.publisher, 0) + 1
            new = delivery.sequence == expected
            if delivery.sequence > expected:
                state = decided(cursor, shard, delivery, expected)
                if state == "orphaned":
                    orphans.append(delivery)
                new = state == "accepted"
            fresh.append(new)
            if new:
                last[delivery.publisher] = delivery.sequence
        commands = [command for new, each in zip(fresh, deliveries, strict=True) if new for command in each.commands]
        done = self._together(cursor, shard, commands)
        outcomes = iter(done)
        for orphan in orphans:
            for command in orphan.commands:
                reason = "an earlier delivery of its publisher was lost before it was confirmed"
                self._set_aside(cursor, shard, command, reason, acknowledged=False)
        again = [retried(each.publisher) for new, each in zip(fresh, deliveries, strict=True) if new]
        rows = [row for row in again if row is not None]
        if rows:  # only now: commands of this batch that change the message may be ahead of it, and must find the row
            cursor.execute(f"DELETE FROM set_aside WHERE id IN ({marks(rows)})", rows)
        self._note(cursor, position, commands, done)
        if publishers:
            values = [value for publisher in publishers for value in (shard, publisher, last[publisher])]
            cursor.execute(
                "INSERT INTO publishers (shard, publisher, sequence, applied_at) VALUES "
                + marks(publishers, "(%s, %s, %s, UNIX_TIMESTAMP())")
                + " ON DUPLICATE KEY UPDATE sequence = VALUES(sequence), applied_at = VALUES(applied_at)",
                values,
            )
        return Applied(
            position,
            [
                [next(outcomes) for _ in delivery.commands] if new else None
                for new, delivery in zip(fresh, deliveries, strict=True)
            ],
        )

    # Applying --------------------------------------------------------------------------------------------------------

    def _together(self, cursor: Any, shard: int, commands: Sequence[Queued]) -> list[Outcome]:
        """Apply the commands. If one of them is at fault, bisect until it is found, and set it aside."""
        if not commands:
            return []
        cursor.execute("SAVEPOINT commands")
        try:
            outcomes = self._all(_Batch(cursor), commands)
        except (AtFault, pymysql.err.Error) as error:
            fault = error if isinstance(error, AtFault) else meaning(error)
            if not isinstance(fault, AtFault):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT commands")
            if len(commands) == 1:
                outcomes = [Failed(str(fault))]
            else:
                half = len(commands) // 2
                return self._together(cursor, shard, commands[:half]) + self._together(cursor, shard, commands[half:])
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, Failed):
                self._set_aside(cursor, shard, command, outcome.reason, acknowledged=True)
            elif isinstance(outcome, Straggler):
                reason = f"its epoch had ended: the current one is {outcome.live_epoch}"
                self._set_aside(cursor, shard, command, reason, acknowledged=False)
        return outcomes

    @staticmethod
    def _set_aside(cursor: Any, shard: int, command: Queued, reason: str, *, acknowledged: bool) -> None:
        """Keep the command, with the reason, for an operator; the number of an acknowledged post stays taken.
        ``acknowledged`` is False if no client can have been told that it was accepted."""
        if isinstance(command, Barrier | OpenChat):
            return
        cursor.execute("SELECT 1 FROM chats WHERE token = %s AND number = %s AND deleted", command.chat)
        if cursor.fetchone() is not None:
            return
        insert(cursor, shard, command, reason, encode(Delivery("", 0, [command])), acknowledged=acknowledged)
        if isinstance(command, Post) and acknowledged:
            cursor.execute(
                "UPDATE chats SET last_number = GREATEST(last_number, %s) WHERE token = %s AND number = %s",
                (command.number, *command.chat),
            )

    def _note(self, cursor: Any, position: Position, commands: Sequence[Queued], outcomes: Sequence[Outcome]) -> None:
        """Note the messages that the transaction changes, for the search index, and mark those that it deletes."""
        changed = {
            (*command.chat, command.number) for command in commands if not isinstance(command, OpenChat | Barrier)
        }
        changed |= {
            mark_of(*command.chat, command.number)
            for command, outcome in zip(commands, outcomes, strict=True)
            if isinstance(command, Delete) and outcome is None
        }
        if changed and self._note_changes:
            cursor.execute(
                "INSERT INTO changes (shard, position, noted_at, messages) VALUES (%s, %s, %s, %s)",
                (
                    position.shard,
                    position.transactions,
                    time.time_ns() // 1_000_000,
                    msgspec.msgpack.encode(sorted(changed)),
                ),
            )

    def _all(self, batch: _Batch, commands: Sequence[Queued]) -> list[Outcome]:
        self._look_up(batch, commands)
        outcomes: list[Outcome] = []
        for command in commands:
            if isinstance(command, Post):
                outcome = self._post(batch, command)
                if isinstance(outcome, Failed):
                    batch.failed.add((command.chat, command.number))
                outcomes.append(outcome)
                continue
            self._insert(batch)
            if isinstance(command, Edit | Delete):
                outcomes.append(self._change(batch, command))
            elif isinstance(command, OpenChat):
                outcomes.append(self._open_chat(batch.cursor, command))
                self._look_up_chats(batch, [command.chat])
            else:
                outcomes.append(None)
        self._insert(batch)
        return outcomes

    def _look_up(self, batch: _Batch, commands: Sequence[Queued]) -> None:
        """Read the chats and Idempotency-Keys that the commands need; the chats are locked, in the order of their
        keys."""
        messages = [command for command in commands if isinstance(command, Post | Edit | Delete)]
        self._look_up_chats(batch, sorted({command.chat for command in messages}))
        self._end_openings(batch)
        keyed = sorted({(c.chat, c.sender_id, c.key) for c in messages if isinstance(c, Post) and c.key is not None})
        if keyed:
            batch.cursor.execute(
                "SELECT token, chat, sender_id, `key`, number, body_hash FROM idempotency_keys"
                f" WHERE (token, chat, sender_id, `key`) IN ({marks(keyed, '(%s,%s,%s,%s)')})",
                [value for chat, sender, key in keyed for value in (*chat, sender, key)],
            )
            for token, chat, sender, key, number, body_hash in batch.cursor.fetchall():
                batch.posted[ChatKey(token, chat), sender, key] = number, body_hash

    @staticmethod
    def _look_up_chats(batch: _Batch, keys: Sequence[ChatKey]) -> None:
        if not keys:
            return
        batch.cursor.execute(
            "SELECT token, number, counted_to, live_epoch, opening, deleted FROM chats"
            f" WHERE (token, number) IN ({marks(keys, '(%s,%s)')}) ORDER BY token, number FOR UPDATE",
            [value for key in keys for value in key],
        )
        for token, number, counted_to, live_epoch, opening, deleted in batch.cursor.fetchall():
            batch.chats[ChatKey(token, number)] = _Chat(counted_to, live_epoch, opening, bool(deleted))

    @staticmethod
    def _end_openings(batch: _Batch) -> None:
        """End the openings in progress: each has told Redis what was stored before this batch, which is out of date
        now."""
        opening = [key for key, chat in batch.chats.items() if chat.opening]
        if opening:
            batch.cursor.execute(
                f"UPDATE chats SET opening = 0 WHERE (token, number) IN ({marks(opening, '(%s,%s)')})",
                [value for key in opening for value in key],
            )

    def _post(self, batch: _Batch, command: Post) -> Outcome:
        chat = batch.chats.get(command.chat)
        if chat is None:
            return Failed("there is no such chat")
        if chat.deleted:
            return Gone()
        entry = command.chat, command.sender_id, command.key or ""
        if command.key is not None:
            known = batch.posted.get(entry)
            if known is not None:
                if known[1] == command.body_hash:
                    return Repeated(known[0])
                return Failed("its Idempotency-Key was used with another body")
        if command.epoch and command.epoch < chat.live_epoch:
            return Straggler(chat.live_epoch)
        if command.key is not None:
            batch.posted[entry] = command.number, command.body_hash or b""
        size = len(command.body.encode()) + 500
        if len(batch.rows) == _ROWS_PER_INSERT or batch.bytes + size > _STATEMENT_BYTES:
            self._insert(batch)
        batch.rows.append(command)
        batch.bytes += size
        return command.number

    def _insert(self, batch: _Batch) -> None:
        rows, batch.rows, batch.bytes = batch.rows, [], 0
        if not rows:
            return
        batch.cursor.execute(
            "INSERT INTO messages (token, chat, number, sender_id, sender_name, body, created_at) VALUES "
            + marks(rows, "(%s,%s,%s,%s,%s,%s,%s)"),
            [
                value
                for row in rows
                for value in (*row.chat, row.number, row.sender_id, row.sender_name, row.body, row.created_at)
            ],
        )
        keyed = [row for row in rows if row.key is not None]
        if keyed:
            batch.cursor.execute(
                "INSERT INTO idempotency_keys (token, chat, sender_id, `key`, number, body_hash) VALUES "
                + marks(keyed, "(%s,%s,%s,%s,%s,%s)"),
                [v for row in keyed for v in (*row.chat, row.sender_id, row.key, row.number, row.body_hash)],
            )
        late: dict[ChatKey, int] = {}
        for row in rows:
            self._uncounted.add(row.chat)
            if row.number <= batch.chats[row.chat].counted_to:
                late[row.chat] = late.get(row.chat, 0) + 1
        for key, count in late.items():  # a higher number came first and was counted, so count_messages skips these
            batch.cursor.execute(
                "UPDATE chats SET counted = counted + %s WHERE token = %s AND number = %s", (count, *key)
            )

    def _change(self, batch: _Batch, command: Edit | Delete) -> Outcome:
        chat = batch.chats.get(command.chat)
        if chat is not None and chat.deleted:
            return Gone()
        epoch, _ = place_of(command.order)
        if chat is not None and epoch and epoch < chat.live_epoch:
            return Straggler(chat.live_epoch)
        done = self._edit(batch.cursor, command) if isinstance(command, Edit) else self._delete(batch.cursor, command)
        if done:
            return None
        if self._is_aside(batch, command):
            return Failed("its message was set aside, so the change is too")
        return NotFound("There is no such message in this chat.")

    @staticmethod
    def _is_aside(batch: _Batch, command: Edit | Delete) -> bool:
        """Whether the message was set aside. Then the change must be set aside too: otherwise a retry of the message
        would restore it without the change."""
        if (command.chat, command.number) in batch.failed:
            return True
        batch.cursor.execute(
            "SELECT 1 FROM set_aside WHERE token = %s AND chat = %s AND number = %s AND acknowledged LIMIT 1",
            (*command.chat, command.number),
        )
        return batch.cursor.fetchone() is not None

    @staticmethod
    def _edit(cursor: Any, command: Edit) -> bool:
        """Apply an edit. Returns whether the message exists. If an edit with a higher order was applied before, this
        one changes nothing."""
        where = *command.chat, command.number, command.editor_id
        cursor.execute(
            "SELECT changed FROM messages WHERE token = %s AND chat = %s AND number = %s AND sender_id = %s FOR UPDATE",
            where,
        )
        found = cursor.fetchone()
        if found is None:
            return False
        if not command.order or command.order > found[0]:
            cursor.execute(
                "UPDATE messages SET body = %s, edited_at = %s, changed = GREATEST(changed, %s)"
                " WHERE token = %s AND chat = %s AND number = %s AND sender_id = %s",
                (command.body, command.edited_at, command.order, *where),
            )
        return True

    @staticmethod
    def _delete(cursor: Any, command: Delete) -> bool:
        """Apply a delete. Returns whether the message existed."""
        cursor.execute(
            "DELETE FROM messages WHERE token = %s AND chat = %s AND number = %s AND (%s OR sender_id = %s)",
            (*command.chat, command.number, command.any_sender, command.deleter_id),
        )
        if not cursor.rowcount:
            return False
        cursor.execute(
            "UPDATE chats SET last_number = GREATEST(last_number, %s), counted = counted - (%s <= counted_to)"
            " WHERE token = %s AND number = %s",
            (command.number, command.number, *command.chat),
        )
        return True

    # Opening ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def _open_chat(cursor: Any, command: OpenChat) -> Outcome:
        """Begin the chat's next epoch and mark it as being opened: step (a) of rule 6."""
        cursor.execute(
            "UPDATE chats SET opening = epoch + 1, epoch = epoch + 1 WHERE token = %s AND number = %s AND NOT deleted",
            command.chat,
        )
        if not cursor.rowcount:
            return NotFound("There is no such chat.")
        cursor.execute("SELECT epoch, last_number FROM chats WHERE token = %s AND number = %s", command.chat)
        epoch, last_number = cursor.fetchone()
        cursor.execute(f"{CHANGED_MESSAGE} ORDER BY number DESC LIMIT {_NEWEST}", command.chat)
        newest = [(Message(*row[:-1]), int(row[-1])) for row in cursor.fetchall()]
        return Opened(epoch, max(last_number, newest[0][0].number if newest else 0), newest)

    def set_live(self, command: OpenChat, epoch: int, slot: int) -> bool:
        """Make the opened epoch live: step (c) of rule 6. Returns False if the opening is over: commands were applied
        to the chat since, another opening has begun, or the Redis in which it was announced is no longer in use.
        Blocks."""

        def work(cursor: Any) -> bool:
            cursor.execute(
                "SELECT generation FROM generations WHERE slot = %s ORDER BY generation DESC LIMIT 1 FOR UPDATE",
                (slot,),
            )
            newest = cursor.fetchone()
            if newest is None or newest[0] != command.generation:
                return False
            cursor.execute(
                "UPDATE chats SET live_epoch = opening, opening = 0 WHERE token = %s AND number = %s AND opening = %s",
                (*command.chat, epoch),
            )
            return bool(cursor.rowcount)

        return self._database.run(work)
