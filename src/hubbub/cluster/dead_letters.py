"""The dead letters: commands that could not be stored, as rows of the table ``set_aside``. An operator lists them,
sends them again, or drops them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from hubbub.cluster.broker import LOST, close, connect, declare, publish, queue_name
from hubbub.cluster.database import Database, marks
from hubbub.cluster.protocol import Delete, Delivery, Edit, Post, decode, encode, kind_of, retry_name, shard_of

_OLD_QUEUE = "hubbub.dead"  # the queue that versions before 0.2 kept dead letters in
_REASON = 1000
_ROWS = 100


class DeadLetter(NamedTuple):
    """A command that was set aside. ``number`` is the id of its row; ``command`` is None when it can't be read.
    ``acknowledged`` is False if no client can have been told that it was accepted."""

    number: int
    at: str
    reason: str
    acknowledged: bool
    command: Post | Edit | Delete | None
    size: int


class DeadLetters:
    """The table of dead letters. Every method blocks except ``retry``, and raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[DeadLetter]:
        def work(cursor: Any) -> Sequence[Any]:
            cursor.execute("SELECT id, at, reason, acknowledged, command FROM set_aside ORDER BY id")
            rows: Sequence[Any] = cursor.fetchall()
            return rows

        return [_read(*row) for row in self._database.run(work, commit=False)]

    def counts(self) -> dict[bool, int]:
        """The number of acknowledged dead letters (True), and of the others (False)."""

        def work(cursor: Any) -> dict[bool, int]:
            cursor.execute("SELECT acknowledged, COUNT(*) FROM set_aside GROUP BY acknowledged")
            return {bool(acknowledged): int(count) for acknowledged, count in cursor.fetchall()}

        return {True: 0, False: 0} | self._database.run(work, commit=False)

    def keep(self, shard: int, body: bytes, reason: str) -> None:
        """Store a message that can't be read."""
        self._database.run(lambda cursor: insert(cursor, shard, None, reason, body, acknowledged=True))

    def drop(self, chosen: Callable[[int], bool]) -> int:
        """Delete the chosen dead letters. Returns their number."""
        numbers = [each.number for each in self.list() if chosen(each.number)]
        if numbers:
            self._database.run(
                lambda cursor: cursor.execute(f"DELETE FROM set_aside WHERE id IN ({marks(numbers)})", numbers)
            )
        return len(numbers)

    async def retry(self, url: str, shards: int, chosen: Callable[[int], bool]) -> int:
        """Send the chosen dead letters through their shards again. Returns their number. Raises one of broker.LOST."""
        connection = await connect(url, "hubbub dead")
        done = 0
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            for each in self.list():
                command = each.command
                if not chosen(each.number) or command is None:
                    continue
                if isinstance(command, Post):
                    command = msgspec.structs.replace(
                        command, epoch=0
                    )  # its number is still reserved for it, in any epoch
                shard = shard_of(command.chat.token, shards)
                await declare(connection, channel, shard)
                # The publisher is named after the row: if two processes send it at the same time, it is still applied
                # only once. That deletes the row.
                publisher = retry_name(each.number, each.at)
                await publish(channel, queue_name(shard), encode(Delivery(publisher, 1, [command], 0)))
                done += 1
        finally:
            await close(connection)
        return done

    async def take_over(self, url: str) -> int:
        """Move dead letters that versions before 0.2 left in a queue into the table. Returns how many were moved, 0
        while RabbitMQ can't be reached."""
        done = 0
        try:
            connection = await connect(url, "hubbub dead")
        except LOST:
            return done
        try:
            channel = await connection.channel()
            queue = await channel.declare_queue(_OLD_QUEUE, passive=True)
            while (message := await queue.get(no_ack=False, fail=False)) is not None:
                self.keep_delivery(message.body, str(message.headers.get("reason", "")))
                await message.ack()
                done += 1
        except LOST:  # no such queue, as in a cluster that began with a later version; or the connection is lost
            return done
        finally:
            await close(connection)
        return done

    def keep_delivery(self, body: bytes, reason: str) -> None:
        """Store a delivery of one command, in the form in which it was kept in a queue."""
        self._database.run(lambda cursor: insert(cursor, 0, _command(body), reason, body, acknowledged=True))


def insert(
    cursor: Any, shard: int, command: Post | Edit | Delete | None, reason: str, body: bytes, *, acknowledged: bool
) -> None:
    """Add a row. ``body`` is a delivery of the command alone, or an unreadable message (then ``command`` is None)."""
    place = ("unreadable", "", 0, 0) if command is None else (kind_of(command), *command.chat, command.number)
    cursor.execute(
        "INSERT INTO set_aside (shard, at, kind, token, chat, number, reason, acknowledged, command)"
        " VALUES (%s, UNIX_TIMESTAMP(), %s, %s, %s, %s, %s, %s, %s)",
        (shard, *place, reason[:_REASON], acknowledged, body),
    )


def erase_texts(cursor: Any, user_ids: Sequence[int]) -> None:
    """Delete what these users wrote from the dead letters: it must not be sent again once all else of it is erased."""
    after, users = 0, {*user_ids}
    while True:
        cursor.execute("SELECT id, command FROM set_aside WHERE id > %s ORDER BY id LIMIT %s", (after, _ROWS))
        rows = cursor.fetchall()
        if not rows:
            return
        gone = [number for number, body in rows if _writer(_command(bytes(body))) in users]
        if gone:
            cursor.execute(f"DELETE FROM set_aside WHERE id IN ({marks(gone)})", gone)
        after = rows[-1][0]


def _writer(command: Post | Edit | Delete | None) -> int | None:
    if isinstance(command, Post):
        return command.sender_id
    return command.editor_id if isinstance(command, Edit) else None


def _read(number: int, at: int, reason: str, acknowledged: int, body: bytes) -> DeadLetter:
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return DeadLetter(number, when, reason, bool(acknowledged), _command(body), len(body))


def _command(body: bytes) -> Post | Edit | Delete | None:
    try:
        (command,) = decode(body).commands
    except ValueError:  # it can't be read, or has more than one
        return None
    return command if isinstance(command, Post | Edit | Delete) else None
