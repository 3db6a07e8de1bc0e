"""Up to which message an index has each chat. What is above is read by the searches themselves (embedded.scan).

An index takes in a chat's messages in the order of their numbers, many at a time, once the chat is due: it has many
messages above ``reached``, or searches of them have taken much work.

Invariant: of each chat in the table ``chats``, the index has what the store had at the index's position, or notes it as
waiting, up to the number ``reached`` of the table ``parts``; up to any number when the chat is not in ``parts``, as no
chat of an index of 0.1.0 is. Of any other chat it has nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from hubbub.chat.model import ChatKey

NUMBER_BITS = 32
ALL = (1 << NUMBER_BITS) - 1  # no message has a higher number
SCHEMA = """
    CREATE TABLE IF NOT EXISTS chats (
        id     INTEGER PRIMARY KEY,
        token  TEXT NOT NULL,
        number INTEGER NOT NULL,
        UNIQUE (token, number)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS parts (
        id      INTEGER PRIMARY KEY REFERENCES chats (id),
        chat_id INTEGER NOT NULL,
        reached INTEGER NOT NULL,
        due     INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS due_parts ON parts (id) WHERE due;
"""
# Finds a chat's id, and up to which number the index has it.
FOUND = f"""
    SELECT id, coalesce((SELECT reached FROM parts p WHERE p.id = c.id), {ALL}) FROM chats c
    WHERE token = ? AND number = ?
"""
_NEXT = (
    "SELECT p.chat_id, c.token, c.number, p.reached FROM parts p JOIN chats c ON c.id = p.id WHERE p.due AND p.id > ?"
    " ORDER BY p.id LIMIT ?"
)
_DUE = "INSERT INTO parts VALUES (?, ?, 0, 1) ON CONFLICT DO UPDATE SET due = 1"
_REACHED = "UPDATE parts SET reached = ?, due = ? WHERE id = ?"
_KNOWN_CHATS = 100_000
_DUE_AT_ONCE = 20


class Part(NamedTuple):
    """A chat that the index has up to the number ``reached``. ``id`` is its id in the store. ``more`` when it may have
    messages above, and is still due."""

    id: int
    chat: ChatKey
    reached: int = 0
    more: bool = True


class Chats:
    """The chats of an index, for the thread that writes it, on its connection. After a rollback call ``forget``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[ChatKey, tuple[int, int]] = {}  # the id and ``reached``; 0 and 0 of a chat that is not there
        self._latest = 0  # the id of the due chat that was taken in last

    def _of(self, chat: ChatKey) -> tuple[int, int]:
        known = self._known.get(chat)
        if known is None:
            known = self._connection.execute(FOUND, chat).fetchone() or (0, 0)
            self._know(chat, known)
        return known

    def _know(self, chat: ChatKey, known: tuple[int, int]) -> None:
        if len(self._known) >= _KNOWN_CHATS:
            self._known.clear()
        self._known[chat] = known

    def reached(self, chat: ChatKey) -> int:
        """Up to which number the index has the chat's messages; 0 when it has none."""
        return self._of(chat)[1]

    def rows(self, chat: ChatKey) -> tuple[int, int]:
        """The rowids of the messages that the index may have are from the first of these up to the second."""
        id, reached = self._of(chat)
        return id << NUMBER_BITS, id << NUMBER_BITS | reached

    def want(self, due: Iterable[Part]) -> None:
        """Note that these chats are due, wherever the index has got to with them by now."""
        for chat_id, chat, *_ in due:
            id, reached = self._of(chat)
            if reached == ALL:
                continue
            if not id:
                (id,) = self._connection.execute(
                    "INSERT INTO chats (token, number) VALUES (?, ?) RETURNING id", chat
                ).fetchone()
                self._know(chat, (id, 0))
            self._connection.execute(_DUE, (id, chat_id))

    def reach(self, parts: Iterable[Part]) -> None:
        """Note up to where the index has these chats, which it wanted: it has the messages up to there, or gets them in
        the same transaction."""
        for _, chat, reached, more in parts:
            id, _ = self._of(chat)
            self._connection.execute(_REACHED, (reached, more, id))
            self._know(chat, (id, reached))
            self._latest = id

    def due(self) -> list[Part]:
        """The next chats that are due, in turns."""
        found: list[tuple[int, str, int, int]] = []
        for after in (self._latest, 0):
            found = found or self._connection.execute(_NEXT, (after, _DUE_AT_ONCE)).fetchall()
        return [Part(chat_id, ChatKey(token, number), reached) for chat_id, token, number, reached in found]

    def forget(self) -> None:
        self._known.clear()
