"""Erases the data of deleted applications and chats in slices, each in its own transaction, so that nothing waits for a
long one. It also sets a renamed user's new name in the messages that Redis holds. The section "Deletions" of
docs/decisions/0007-cluster-protocol.md explains why nothing that was erased comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.cluster.database import Database, marks
from hubbub.cluster.outbox import mark_of

log = logging.getLogger("hubbub.writer")

_ROWS = 500  # some ten milliseconds
_CHATS = 50
_LOOK_S = 1.0
_PAUSE_S = 0.02  # between two slices
UNDER_WAY_S = 6  # how long posts of a deleted or renamed user may be in progress: a confirm takes at most 5 s
_NOTES_SHARD = -1  # notes for the search index have a shard's number; these belong to no shard


class Erasure(NamedTuple):
    """A row of ``erasures``. The chat's number is 0 if the row is for an application, or for a user's name in one.
    ``again`` says that a name was already set once.
    """

    number: int
    kind: str
    chat: ChatKey
    user_id: int
    again: bool


class HotData(Protocol):
    """See cluster.redis.stored."""

    async def gone(self, chat: ChatKey) -> None: ...
    async def renamed(self, chat: ChatKey, user_id: int, name: str) -> None: ...


class Erasing:
    """The table of erasures. All methods block, and raise Unavailable."""

    def __init__(self, database: Database, *, note_changes: bool) -> None:
        self._database = database
        self._note_changes = note_changes

    def next(self) -> Erasure | None:
        """The next erasure that is due: names first, then chats, then applications."""

        def work(cursor: Any) -> Erasure | None:
            for kind in ("name", "chat", "application"):
                cursor.execute(
                    "SELECT id, token, chat, user_id, until FROM erasures"
                    " WHERE kind = %s AND until <= UNIX_TIMESTAMP() LIMIT 1",
                    (kind,),
                )
                row = cursor.fetchone()
                if row is not None:
                    return Erasure(row[0], kind, ChatKey(row[1], row[2]), row[3], again=row[4] > 0)
            return None

        return self._database.run(work, commit=False)

    def name_of(self, user_id: int) -> str:
        def work(cursor: Any) -> str:
            cursor.execute("SELECT name FROM users WHERE id = %s", (user_id,))
            return str(cursor.fetchone()[0])

        return self._database.run(work, commit=False)

    def chats(self, token: str, after: int) -> list[ChatKey]:
        """Up to _CHATS of the application's chats, the next above the number ``after``."""

        def work(cursor: Any) -> list[ChatKey]:
            cursor.execute(
                "SELECT number FROM chats WHERE token = %s AND number > %s AND NOT deleted ORDER BY number LIMIT %s",
                (token, after, _CHATS),
            )
            return [ChatKey(token, number) for (number,) in cursor.fetchall()]

        return self._database.run(work, commit=False)

    def once_more(self, erasure: Erasure) -> None:
        """Make it due again once all posts that were in progress have ended."""
        sql = "UPDATE erasures SET until = UNIX_TIMESTAMP() + %s WHERE id = %s"
        self._database.run(lambda cursor: cursor.execute(sql, (UNDER_WAY_S + 1, erasure.number)))

    def done(self, erasure: Erasure) -> None:
        self._database.run(lambda cursor: cursor.execute("DELETE FROM erasures WHERE id = %s", (erasure.number,)))

    def some(self, erasure: Erasure) -> None:
        """Erase a slice of it. Does nothing while another process works on it."""

        def work(cursor: Any) -> None:
            cursor.execute("SELECT at FROM erasures WHERE id = %s FOR UPDATE SKIP LOCKED", (erasure.number,))
            if cursor.fetchone() is None:
                return
            of_chat = erasure.kind == "chat"
            if not (self._of_chat(cursor, erasure.chat) if of_chat else _of_application(cursor, erasure.chat.token)):
                cursor.execute("DELETE FROM erasures WHERE id = %s", (erasure.number,))

        self._database.run(work)

    def _of_chat(self, cursor: Any, chat: ChatKey) -> bool:
        """Erase a slice of a chat. Returns whether there was anything left to erase."""
        cursor.execute(
            "SELECT number FROM messages WHERE token = %s AND chat = %s ORDER BY number LIMIT %s", (*chat, _ROWS)
        )
        numbers = [row[0] for row in cursor.fetchall()]
        if numbers:
            cursor.execute(
                f"DELETE FROM messages WHERE token = %s AND chat = %s AND number IN ({marks(numbers)})",
                (*chat, *numbers),
            )
            if self._note_changes:
                _note(cursor, chat, numbers)
            return True
        found = 0
        for table in ("idempotency_keys", "set_aside"):
            cursor.execute(f"DELETE FROM {table} WHERE token = %s AND chat = %s LIMIT {_ROWS}", chat)
            found += cursor.rowcount
        return found > 0


def _of_application(cursor: Any, token: str) -> bool:
    """Erase a slice of an application; its chats are marked as deleted, and erased like any other deleted chat. Returns
    whether there was anything left to do."""
    cursor.execute(
        "SELECT number FROM chats WHERE token = %s AND NOT deleted ORDER BY number LIMIT %s FOR UPDATE", (token, _ROWS)
    )
    numbers = [row[0] for row in cursor.fetchall()]
    if numbers:
        mark_chats(cursor, token, numbers)
        return True
    found = 0
    for table in ("members", "former_members", "invites"):
        cursor.execute(f"DELETE FROM {table} WHERE token = %s LIMIT {_ROWS}", (token,))
        found += cursor.rowcount
    return found > 0


def mark_chats(cursor: Any, token: str, numbers: Sequence[int]) -> None:
    """Mark chats as deleted, and their content to be erased. Their rows must be locked."""
    cursor.execute(
        f"UPDATE chats SET deleted = TRUE, title = NULL, opening = 0 WHERE token = %s AND number IN ({marks(numbers)})",
        (token, *numbers),
    )
    cursor.execute(
        f"INSERT INTO erasures (kind, token, chat, at) VALUES {marks(numbers, '(%s,%s,%s,UNIX_TIMESTAMP())')}",
        [value for number in numbers for value in ("chat", token, number)],
    )


def _note(cursor: Any, chat: ChatKey, numbers: Sequence[int]) -> None:
    """Note changed messages for the search index, as cluster.deliveries does."""
    cursor.execute(
        "INSERT INTO shards (shard, position) VALUES (%s, 1) ON DUPLICATE KEY UPDATE position = position + 1",
        (_NOTES_SHARD,),
    )
    cursor.execute("SELECT position FROM shards WHERE shard = %s", (_NOTES_SHARD,))
    (position,) = cursor.fetchone()
    cursor.execute(
        "INSERT INTO changes (shard, position, noted_at, messages) VALUES (%s, %s, %s, %s)",
        (
            _NOTES_SHARD,
            position,
            time.time_ns() // 1_000_000,
            msgspec.msgpack.encode([place for n in numbers for place in ((*chat, n), mark_of(*chat, n))]),
        ),
    )


async def keep_erasing(erasing: Erasing, hot: HotData) -> None:
    """Erase what is due. Runs until cancelled; several processes may run it at once."""
    fault, announced = "", None
    while True:
        try:
            erasure = await asyncio.to_thread(erasing.next)
            if erasure is not None and erasure.kind == "name":
                await _rename(erasing, hot, erasure)
            elif erasure is not None:
                if erasure.kind == "chat" and erasure != announced:  # the deleting process may have failed before this
                    await hot.gone(erasure.chat)
                    announced = erasure
                await asyncio.to_thread(erasing.some, erasure)
            fault = ""
        except Unavailable as error:
            erasure = None
            if error.sentence != fault:
                fault = error.sentence
                log.info("Deleted data will be erased later: %s", fault)
        await asyncio.sleep(_LOOK_S if erasure is None else _PAUSE_S)


async def _rename(erasing: Erasing, hot: HotData, erasure: Erasure) -> None:
    """Set the new name at once, and once more later: in between, a post that was accepted before may be shown with the
    old name. If the process is killed, the row is still there, and all of it is done again.
    """
    name = await asyncio.to_thread(erasing.name_of, erasure.user_id)
    after = 0
    while chats := await asyncio.to_thread(erasing.chats, erasure.chat.token, after):
        await asyncio.gather(*(hot.renamed(chat, erasure.user_id, name) for chat in chats))
        after = chats[-1].number
    await asyncio.to_thread(erasing.done if erasure.again else erasing.once_more, erasure)


def rename_later(cursor: Any, user_id: int) -> None:
    """Have the user's new name set in the messages that Redis holds, once this is committed. An existing row is
    replaced: a process that works on it uses the previous name."""
    cursor.execute("DELETE FROM erasures WHERE kind = 'name' AND user_id = %s", (user_id,))
    cursor.execute(
        "INSERT INTO erasures (kind, token, user_id, at)"
        " SELECT 'name', token, %s, UNIX_TIMESTAMP() FROM members WHERE user_id = %s"
        " UNION SELECT 'name', token, %s, UNIX_TIMESTAMP() FROM former_members WHERE user_id = %s",
        (user_id,) * 4,
    )
