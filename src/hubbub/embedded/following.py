"""What the search index reads of the store: what has changed, and the messages as they are now.

Messages are read by runs of consecutive numbers in a chat: a busy chat's new messages are one range of the table.
"""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.embedded.index_chats import Part
from hubbub.embedded.index_shares import MOST_CHANGES, Change, cost
from hubbub.embedded.soundness import Soundness

CHANGES_AT_ONCE = 500  # batches of changes that are read at once
_CHATS_AT_ONCE = 5000  # chats that one step of a walk over all chats looks at
_KNOWN_CHATS = 100_000
_SHORT = 500  # characters; most texts have fewer

_NOTED = "SELECT seq, noted_at, messages FROM changes WHERE seq > ? ORDER BY seq LIMIT ?"
_RUN = "FROM messages WHERE chat_id = ? AND number BETWEEN ? AND ?"
_EDITED = "edited_at IS NOT NULL"
# SQLite counts the characters up to the first NUL only.
_SIZE = "iif(instr(body, char(0)), length(CAST(body AS BLOB)), length(body))"
_NEW = f"SELECT number, sender_id, {_SIZE}, iif({_SIZE} <= {_SHORT}, body, NULL), {_EDITED} {_RUN}"
_TEXTS = f"SELECT number, body, {_EDITED} {_RUN}"
_THERE = (
    "SELECT c.id FROM chats c JOIN applications a ON a.id = c.application_id"
    " WHERE c.id = ? AND NOT c.deleted AND NOT a.deleted"
)
_BEYOND = f"SELECT number, body, {_EDITED} FROM messages WHERE chat_id = ({_THERE}) AND number > ? ORDER BY number"
_KEY = "SELECT a.token, c.number FROM chats c JOIN applications a ON a.id = c.application_id WHERE c.id = ?"
_LARGE = """
    SELECT c.id, a.token, c.number FROM chats c JOIN applications a ON a.id = c.application_id
    WHERE c.id BETWEEN ? AND ? AND NOT c.deleted AND NOT a.deleted
    AND max(c.last_deleted, coalesce((SELECT max(m.number) FROM messages m WHERE m.chat_id = c.id), 0)) > ?
"""

Place: TypeAlias = tuple[int, int]  # a chat's id and a message's number


class _Keys(dict[int, ChatKey]):
    """The keys of chats by their ids, also of deleted chats. A chat's key never changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __missing__(self, chat_id: int) -> ChatKey:
        if len(self) >= _KNOWN_CHATS:
            self.clear()
        key = self[chat_id] = ChatKey(*self._connection.execute(_KEY, (chat_id,)).fetchone())
        return key


def note_changes(connection: sqlite3.Connection, messages: array[int]) -> None:
    """Note in the current transaction which messages changed, for ``Following.noted``: chat ids and numbers in turn."""
    noted = (time.time_ns() // 1_000_000, messages.tobytes())
    connection.execute("INSERT INTO changes (noted_at, messages) VALUES (?, ?)", noted)


class Following:
    """Reads for the index, on one thread. Every method blocks, and raises Unavailable."""

    def __init__(self, connection: sqlite3.Connection, soundness: Soundness) -> None:
        self._connection = connection
        self._soundness = soundness
        self._keys = _Keys(connection)

    def close(self) -> None:
        self._connection.close()

    def last_change(self) -> int:
        """The position of the latest change."""
        with self._snapshot() as connection:
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM changes").fetchone()[0])

    def noted(self, after: int) -> tuple[int, dict[Place, int]]:
        """The position after the next changes, which are those after the position ``after``; and of each message that
        they posted, edited or deleted, oldest change first, when (ms) that was noted. A number 0 stands for a deleted
        chat, all of whose messages are erased."""
        noted: dict[Place, int] = {}
        with self._snapshot() as connection:
            for seq, noted_at, messages in connection.execute(_NOTED, (after, CHANGES_AT_ONCE)):
                pairs = array("q", messages)
                for place in zip(pairs[::2], pairs[1::2], strict=True):
                    noted.setdefault(place, noted_at)
                after = seq
                if len(noted) >= MOST_CHANGES:
                    break
        return after, noted

    def keys(self, chat_ids: Iterable[int]) -> dict[int, ChatKey]:
        """The keys of these chats."""
        with self._snapshot():
            return {chat_id: self._keys[chat_id] for chat_id in chat_ids}

    def changes(self, noted: Mapping[Place, int]) -> tuple[list[Change], dict[Place, Document]]:
        """The changes of these messages, in the given order. Of messages that are short or gone there are the documents
        too, so that ``documents`` need not read them again.
        """
        there: dict[Place, Change] = {}
        documents: dict[Place, Document] = {}
        with self._snapshot() as connection:
            for run in _runs(sorted(noted)):
                chat_id = run[0]
                key = self._keys[chat_id]
                for number, sender, size, body, edited in connection.execute(_NEW, run):
                    place = chat_id, number
                    there[place] = Change(sender, noted[place], chat_id, number, size)
                    if body is not None:
                        documents[place] = Document(key, number, body, 0, edited == 1)
            for place in noted.keys() - there.keys():
                there[place] = Change(0, noted[place], *place, 0)
                documents[place] = Document(self._keys[place[0]], place[1], None)
        return [there[place] for place in noted], documents

    def documents(self, places: Iterable[Place]) -> list[Document]:
        """The messages with these chat ids and numbers, as they are now, in the order of chats."""
        documents: list[Document] = []
        with self._snapshot() as connection:
            for run in _runs(sorted(set(places))):
                chat_id, first, last = run
                key = self._keys[chat_id]
                rows = connection.execute(_TEXTS, run).fetchall()
                documents += [Document(key, number, body, 0, edited == 1) for number, body, edited in rows]
                if len(rows) <= last - first:
                    gone = set(range(first, last + 1)).difference(row[0] for row in rows)
                    documents += [Document(key, number, None) for number in gone]
        return documents

    def of_chats(self, due: Sequence[Part], most: float) -> tuple[list[Document], list[Part]]:
        """The next messages of chats that the index takes in, about ``most`` characters in all, in equal shares, but at
        least one message; and what it then has of these chats. A deleted chat has no messages left."""
        documents: list[Document] = []
        parts: list[Part] = []
        with self._snapshot() as connection:
            for place, each in enumerate(due):
                if place and most <= 0:
                    break
                share = most / (len(due) - place)
                reached, more = each.reached, False
                for number, body, edited in connection.execute(_BEYOND, (each.id, each.reached)):
                    more = share <= 0 and bool(documents)
                    if more:
                        break
                    documents.append(Document(each.chat, number, body, 0, edited == 1))
                    share -= cost(len(body))
                    most -= cost(len(body))
                    reached = number
                parts.append(Part(each.id, each.chat, reached, more))
        return documents, parts

    def large_chats(self, after: int, small: int) -> tuple[int, list[Part]]:
        """Looks at the next chats whose ids are above ``after``. Returns the last of these ids, 0 at the end, and the
        chats that have given more than ``small`` numbers."""
        last = after + _CHATS_AT_ONCE
        with self._snapshot() as connection:
            (end,) = connection.execute("SELECT coalesce(max(id), 0) FROM chats").fetchone()
            found = connection.execute(_LARGE, (after + 1, last, small)).fetchall()
        large = [Part(chat_id, ChatKey(token, number)) for chat_id, token, number in found]
        return last if last < end else 0, large

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """All statements in it see the same state, and find a page that they share in the cache."""
        try:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.rollback()
        except sqlite3.Error as error:
            raise self._soundness.met(error, "be read") from error


def _runs(places: Sequence[Place]) -> Iterator[tuple[int, int, int]]:
    """The chat id, the first and the last of each run of consecutive numbers; ``places`` are sorted and differ."""
    chat_id, first, last = 0, 0, -1
    for each, number in places:
        if each != chat_id or number != last + 1:
            if last >= first:
                yield chat_id, first, last
            chat_id, first = each, number
        last = number
    if last >= first:
        yield chat_id, first, last
