"""What the search index reads of the store: what has changed, and the messages as they are now.

Messages are read by runs of consecutive numbers in a chat: a busy chat's new messages are one range of the table.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.embedded.index_shares import MOST_CHANGES, Change
from hubbub.embedded.soundness import Soundness

CHANGES_AT_ONCE = 500  # batches of changes that are read at once
_AT_ONCE = 5000  # messages that one step of a walk over all messages reads
_MOST_CHARACTERS = 2_097_152  # of texts that a rebuild of the index reads at once
_SHORT = 500  # characters; most texts have fewer

_NOTED = "SELECT seq, noted_at, messages FROM changes WHERE seq > ? ORDER BY seq LIMIT ?"
_RUN = "FROM messages WHERE chat_id = ? AND number BETWEEN ? AND ?"
_EDITED = "edited_at IS NOT NULL"
_NEW = f"SELECT number, sender_id, length(body), iif(length(body) <= {_SHORT}, body, NULL), {_EDITED} {_RUN}"
_TEXTS = f"SELECT number, body, {_EDITED} {_RUN}"
_FROM = (
    f"SELECT chat_id, number, body, {_EDITED} FROM messages WHERE (chat_id, number) > (?, ?)"
    " ORDER BY chat_id, number LIMIT ?"
)
_KEY = "SELECT a.token, c.number FROM chats c JOIN applications a ON a.id = c.application_id WHERE c.id = ?"

Place: TypeAlias = tuple[int, int]  # a chat's id and a message's number


class _Keys(dict[int, ChatKey]):
    """The keys of chats by their ids, also of deleted chats, looked up once each."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __missing__(self, chat_id: int) -> ChatKey:
        key = self[chat_id] = ChatKey(*self._connection.execute(_KEY, (chat_id,)).fetchone())
        return key


class Following:
    """Reads for the index, on one thread. Every method blocks, and raises Unavailable."""

    def __init__(self, connection: sqlite3.Connection, soundness: Soundness) -> None:
        self._connection = connection
        self._soundness = soundness

    def close(self) -> None:
        self._connection.close()

    def last_change(self) -> int:
        """The position of the latest change."""
        with self._snapshot() as connection:
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM changes").fetchone()[0])

    def changes(self, after: int) -> tuple[int, list[Change], dict[Place, Document]]:
        """The position after the next changes, and the messages that these changes posted, edited or deleted, oldest
        change first. The changes are those after the position ``after``. Of messages that are short or gone there are
        the documents too, so that ``documents`` need not read them again.
        """
        noted: dict[Place, int] = {}
        there: dict[Place, Change] = {}
        documents: dict[Place, Document] = {}
        with self._snapshot() as connection:
            keys = _Keys(connection)
            for seq, noted_at, messages in connection.execute(_NOTED, (after, CHANGES_AT_ONCE)):
                pairs = array("q", messages)
                for place in zip(pairs[::2], pairs[1::2], strict=True):
                    noted.setdefault(place, noted_at)
                after = seq
                if len(noted) >= MOST_CHANGES:
                    break
            for run in _runs(sorted(noted)):
                chat_id = run[0]
                key = keys[chat_id]
                for number, sender, size, body, edited in connection.execute(_NEW, run):
                    place = chat_id, number
                    there[place] = Change(sender, noted[place], chat_id, number, size)
                    if body is not None:
                        documents[place] = Document(key, number, body, 0, edited == 1)
            for place in noted.keys() - there.keys():
                there[place] = Change(0, noted[place], *place, 0)
                documents[place] = Document(keys[place[0]], place[1], None)
        return after, [there[place] for place in noted], documents

    def documents(self, places: Iterable[Place]) -> list[Document]:
        """The messages with these chat ids and numbers, as they are now, in the order of chats."""
        documents: list[Document] = []
        with self._snapshot() as connection:
            keys = _Keys(connection)
            for run in _runs(sorted(set(places))):
                chat_id, first, last = run
                key = keys[chat_id]
                rows = connection.execute(_TEXTS, run).fetchall()
                documents += [Document(key, number, body, 0, edited == 1) for number, body, edited in rows]
                if len(rows) <= last - first:
                    gone = set(range(first, last + 1)).difference(row[0] for row in rows)
                    documents += [Document(key, number, None) for number in gone]
        return documents

    def all_messages(self, after: Place) -> tuple[Place, list[Document]]:
        """The next messages after the place ``after``, in the order of their keys, and the place of the last of them,
        which comes first; no messages when there are no more.
        """
        documents: list[Document] = []
        left = _MOST_CHARACTERS
        with self._snapshot() as connection:
            keys = _Keys(connection)
            for chat_id, number, body, edited in connection.execute(_FROM, (*after, _AT_ONCE)):
                documents.append(Document(keys[chat_id], number, body, 0, edited == 1))
                after = chat_id, number
                left -= len(body)
                if left <= 0:
                    break
        return after, documents

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
