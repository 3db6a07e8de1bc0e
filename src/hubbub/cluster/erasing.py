"""Takes out what is left of deleted applications and chats, a slice and a transaction at a time: nobody waits for a
long one. And gives what Redis holds of a user's messages the user's new name. Why nothing comes back:
docs/decisions/0007-cluster-protocol.md, Deletions.
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

log = logging.getLogger("hubbub.writer")

_ROWS = 500  # some ten milliseconds
_CHATS = 50
_LOOK_S = 1.0
_PAUSE_S = 0.02  # between two slices
UNDER_WAY_S = 6  # what a user who is deleted or renamed may have under way: a confirm takes 5 s at most
_NOTES_SHARD = -1  # what the search index has to look at again is noted by shards, and this is none of theirs


class Erasure(NamedTuple):
    """A row of ``erasures``; the chat's number is 0 where it is of an application, or of a user's name in one.
    ``again``: of a name, it was done before.
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
    """The rows. All methods block, and raise Unavailable."""

    def __init__(self, database: Database, *, note_changes: bool) -> None:
        self._database = database
        self._note_changes = note_changes

    def next(self) -> Erasure | None:
        """What is to be done next, of what is due; a chat before an application."""

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
        """Some of the application's chats, the next above a number."""

        def work(cursor: Any) -> list[ChatKey]:
            cursor.execute(
                "SELECT number FROM chats WHERE token = %s AND number > %s AND NOT deleted ORDER BY number LIMIT %s",
                (token, after, _CHATS),
            )
            return [ChatKey(token, number) for (number,) in cursor.fetchall()]

        return self._database.run(work, commit=False)

    def once_more(self, erasure: Erasure) -> None:
        """When what was under way at its commit has ended."""
        sql = "UPDATE erasures SET until = UNIX_TIMESTAMP() + %s WHERE id = %s"
        self._database.run(lambda cursor: cursor.execute(sql, (UNDER_WAY_S + 1, erasure.number)))

    def done(self, erasure: Erasure) -> None:
        self._database.run(lambda cursor: cursor.execute("DELETE FROM erasures WHERE id = %s", (erasure.number,)))

    def some(self, erasure: Erasure) -> None:
        """Take a slice of it out. Another process may be at it: then nothing is done."""

        def work(cursor: Any) -> None:
            cursor.execute("SELECT at FROM erasures WHERE id = %s FOR UPDATE SKIP LOCKED", (erasure.number,))
            if cursor.fetchone() is None:
                return
            of_chat = erasure.kind == "chat"
            if not (self._of_chat(cursor, erasure.chat) if of_chat else _of_application(cursor, erasure.chat.token)):
                cursor.execute("DELETE FROM erasures WHERE id = %s", (erasure.number,))

        self._database.run(work)

    def _of_chat(self, cursor: Any, chat: ChatKey) -> bool:
        """Whether there was something to be taken out."""
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
    """Whether there was something to be taken out. Its chats are, one after another, as any that is deleted."""
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
    """These chats, whose rows are locked, are deleted once this is committed; what is in them is to be erased."""
    cursor.execute(
        f"UPDATE chats SET deleted = TRUE, title = NULL, opening = 0 WHERE token = %s AND number IN ({marks(numbers)})",
        (token, *numbers),
    )
    cursor.execute(
        f"INSERT INTO erasures (kind, token, chat, at) VALUES {marks(numbers, '(%s,%s,%s,UNIX_TIMESTAMP())')}",
        [value for number in numbers for value in ("chat", token, number)],
    )


def _note(cursor: Any, chat: ChatKey, numbers: Sequence[int]) -> None:
    """For the search index, as cluster.deliveries notes what it has changed."""
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
            msgspec.msgpack.encode([(*chat, number) for number in numbers]),
        ),
    )


async def keep_erasing(erasing: Erasing, hot: HotData) -> None:
    """Runs until cancelled; several processes may run it at once."""
    fault, told = "", None
    while True:
        try:
            erasure = await asyncio.to_thread(erasing.next)
            if erasure is not None and erasure.kind == "name":
                await _rename(erasing, hot, erasure)
            elif erasure is not None:
                if erasure.kind == "chat" and erasure != told:  # who deleted it may not have come to that
                    await hot.gone(erasure.chat)
                    told = erasure
                await asyncio.to_thread(erasing.some, erasure)
            fault = ""
        except Unavailable as error:
            erasure = None
            if error.sentence != fault:
                fault = error.sentence
                log.info("Deleted data will be erased later: %s", fault)
        await asyncio.sleep(_LOOK_S if erasure is None else _PAUSE_S)


async def _rename(erasing: Erasing, hot: HotData, erasure: Erasure) -> None:
    """Renames at once, and once more: between the two a post may be shown that was accepted before, with the old name.
    A process that is killed during this leaves the row, and everything is done again.
    """
    name = await asyncio.to_thread(erasing.name_of, erasure.user_id)
    after = 0
    while chats := await asyncio.to_thread(erasing.chats, erasure.chat.token, after):
        await asyncio.gather(*(hot.renamed(chat, erasure.user_id, name) for chat in chats))
        after = chats[-1].number
    await asyncio.to_thread(erasing.done if erasure.again else erasing.once_more, erasure)


def rename_later(cursor: Any, user_id: int) -> None:
    """The user's name is another once this is committed; what Redis holds of the user's messages is to follow. A row
    that is there goes: who is at it has the name of before."""
    cursor.execute("DELETE FROM erasures WHERE kind = 'name' AND user_id = %s", (user_id,))
    cursor.execute(
        "INSERT INTO erasures (kind, token, user_id, at)"
        " SELECT 'name', token, %s, UNIX_TIMESTAMP() FROM members WHERE user_id = %s"
        " UNION SELECT 'name', token, %s, UNIX_TIMESTAMP() FROM former_members WHERE user_id = %s",
        (user_id,) * 4,
    )
