"""Which chats an index has. The others are small: nobody needs an index for them (embedded.scan).

A chat joins the index: its messages are added in the order of their numbers, some in each step. While it joins, the
index has its messages with numbers up to ``reached``, and searches still read all of them from the store.

Invariant: of each chat in the table ``chats``, the index has what the store had at the index's position, or notes it as
waiting, up to the number ``reached`` of the table ``joining``; up to any number when the chat is not in ``joining``.
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
    CREATE TABLE IF NOT EXISTS joining (
        id      INTEGER PRIMARY KEY REFERENCES chats (id),
        chat_id INTEGER NOT NULL,
        reached INTEGER NOT NULL
    ) STRICT;
"""
# Finds a chat's id only when the index has all of the chat.
WHOLE = (
    "SELECT id FROM chats c WHERE token = ? AND number = ? AND NOT EXISTS (SELECT 1 FROM joining j WHERE j.id = c.id)"
)
_FOUND = "SELECT id, (SELECT reached FROM joining j WHERE j.id = c.id) FROM chats c WHERE token = ? AND number = ?"
_NEXT = (
    "SELECT j.chat_id, c.token, c.number, j.reached FROM joining j JOIN chats c ON c.id = j.id WHERE j.id > ?"
    " ORDER BY j.id LIMIT ?"
)
_KNOWN_CHATS = 100_000
_JOINING_AT_ONCE = 20


class Joining(NamedTuple):
    """A chat that joins the index: its id in the store, and how far the index has it; ALL when it has joined."""

    chat_id: int
    chat: ChatKey
    reached: int = 0


class Chats:
    """The chats of an index, for the thread that writes it, on its connection. After a rollback call ``forget``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[ChatKey, tuple[int, int]] = {}  # the id and ``reached``; 0 and 0 of a chat that is not there
        self._latest = 0  # of those that join

    def _of(self, chat: ChatKey) -> tuple[int, int]:
        known = self._known.get(chat)
        if known is None:
            if len(self._known) >= _KNOWN_CHATS:
                self._known.clear()
            found = self._connection.execute(_FOUND, chat).fetchone()
            known = (0, 0) if found is None else (found[0], ALL if found[1] is None else found[1])
            self._known[chat] = known
        return known

    def reached(self, chat: ChatKey) -> int:
        """Up to which number the index has the chat's messages; 0 when it has none."""
        return self._of(chat)[1]

    def row(self, chat: ChatKey, number: int) -> int | None:
        """The rowid of a message that the index has or may have; None when its turn has not come."""
        id, reached = self._of(chat)
        return id << NUMBER_BITS | number if number <= reached else None

    def put(self, joined: Iterable[Joining]) -> None:
        """Note how far these chats have joined. The index has their messages up to there, or gets them in the same
        transaction."""
        for chat_id, chat, reached in joined:
            self._connection.execute("INSERT OR IGNORE INTO chats (token, number) VALUES (?, ?)", chat)
            (id,) = self._connection.execute("SELECT id FROM chats WHERE token = ? AND number = ?", chat).fetchone()
            if reached == ALL:
                self._connection.execute("DELETE FROM joining WHERE id = ?", (id,))
            else:
                self._connection.execute("INSERT OR REPLACE INTO joining VALUES (?, ?, ?)", (id, chat_id, reached))
            self._known.pop(chat, None)  # it is looked up again when it is needed
            if reached:
                self._latest = id

    def joining(self) -> list[Joining]:
        """The next chats that join, in turns."""
        found: list[tuple[int, str, int, int]] = []
        for after in (self._latest, 0):
            found = found or self._connection.execute(_NEXT, (after, _JOINING_AT_ONCE)).fetchall()
        return [Joining(chat_id, ChatKey(token, number), reached) for chat_id, token, number, reached in found]

    def forget(self) -> None:
        self._known.clear()
