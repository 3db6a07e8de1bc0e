"""Reads the changes that the writers have noted for the search index, see cluster.indexer.

Memory is bounded, however many changes are noted: it holds a few thousand places at a time, and the texts of as many
messages as fit into some megabytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

import msgspec

from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.cluster.database import Database, marks
from hubbub.cluster.engine import SILENT_S

_Place: TypeAlias = tuple[str, int, int]  # of a message: token, chat, number, which is below zero in a mark

_NOTES = 200
_NOTED_BYTES = 256 * 1024  # some five thousand places
_PLACES = 1000  # looked at for how long they are
_TEXT_BYTES = 4 * 1024 * 1024
_PATIENCE_S = 120

# A text's version is the order of the message's last change, so no clock decides which text an index keeps. A message
# without such an order has the time when it was written, as all had in version 0.1.0, whose documents may still be in
# the index: any order is higher than any time.
_VERSION = "IF(changed > 0, (1 << 48) + changed, GREATEST(created_at, COALESCE(edited_at, 0)))"
_EDITED = "changed > 0 OR edited_at IS NOT NULL"
# The version of a message that was deleted, which is above that of every text.
_GONE = 1 << 62


class Round(NamedTuple):
    """The number of notes that were processed, and whether there are more."""

    changes: int
    more: bool


class Outbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def index_lag(self) -> float:
        """How many seconds the oldest noted change has been waiting."""
        row = await self._database.row("SELECT MIN(noted_at) FROM changes", ())
        return max(time.time() - row[0] / 1000, 0.0) if row[0] is not None else 0.0

    def index_changes(self, take: Callable[[list[Document]], None]) -> Round:
        """Pass the messages of some noted changes, as they are now, to ``take`` in parts, and delete the notes after
        the last part. Several processes may do so at once, each with different notes.

        Raises:
            Unavailable: or whatever ``take`` raises. Then no note is deleted.
        """

        def work(cursor: Any) -> Round:
            # Otherwise the gaps between the rows would be locked too, and the writers could add no notes.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            # The session is idle while the search server works on a part, which may take long.
            cursor.execute(f"SET SESSION wait_timeout = {_PATIENCE_S}")
            cursor.execute(
                "SELECT shard, position, LENGTH(messages) FROM changes ORDER BY shard, position LIMIT %s"
                " FOR UPDATE SKIP LOCKED",
                (_NOTES,),
            )
            lengths = list(cursor.fetchall())
            if not lengths:
                cursor.execute(f"SET SESSION wait_timeout = {SILENT_S}")
                return Round(0, more=False)
            notes = [row[:2] for row in lengths[: _fitting([row[2] for row in lengths], _NOTED_BYTES)]]
            cursor.execute(
                f"SELECT messages FROM changes WHERE (shard, position) IN ({_groups(notes)}) ORDER BY shard, position",
                _flat(notes),
            )
            decoded = [msgspec.msgpack.decode(row[0], type=list[_Place]) for row in cursor.fetchall()]
            gone = {mark_of(*place) for places in decoded for place in places if place[2] < 0}
            noted = [[place for place in places if place[2] > 0] for places in decoded]
            sizes = _sizes(cursor, sorted({place for places in noted for place in places}))
            done = _fitting([sum(sizes.get(place, 0) for place in places) for places in noted], _TEXT_BYTES)
            places = sorted({place for places in noted[:done] for place in places})
            while places:
                fitting = min(_PLACES, _fitting([sizes.get(place, 0) for place in places], _TEXT_BYTES))
                if documents := _documents(cursor, places[:fitting], gone):
                    take(documents)
                places = places[fitting:]
            cursor.execute(
                f"DELETE FROM changes WHERE (shard, position) IN ({_groups(notes[:done])})", _flat(notes[:done])
            )
            cursor.execute(f"SET SESSION wait_timeout = {SILENT_S}")
            return Round(done, more=done < len(lengths) or len(lengths) == _NOTES)

        return self._database.run(work)

    def all_messages(self, after: _Place) -> list[Document]:
        """The next messages after the place ``after``, in the order of their keys; none when there are no more."""
        token, chat, number = after
        behind = (
            "FROM messages WHERE token >= %s AND (token > %s OR chat > %s OR (chat = %s AND number > %s))"
            " ORDER BY token, chat, number LIMIT %s"
        )
        key = (token, token, chat, chat, number)

        def work(cursor: Any) -> list[Document]:
            cursor.execute(f"SELECT LENGTH(body) {behind}", (*key, _PLACES))
            sizes = [row[0] for row in cursor.fetchall()]
            if not sizes:
                return []
            cursor.execute(
                f"SELECT token, chat, number, body, {_VERSION}, {_EDITED} {behind}",
                (*key, _fitting(sizes, _TEXT_BYTES)),
            )
            return [_document(row[:3], *row[3:]) for row in cursor.fetchall()]

        return self._database.run(work, commit=False)


def _sizes(cursor: Any, places: Sequence[_Place]) -> dict[_Place, int]:
    """The sizes of the texts of those messages that exist, by place."""
    sizes: dict[_Place, int] = {}
    for at in range(0, len(places), _PLACES):
        some = places[at : at + _PLACES]
        cursor.execute(
            f"SELECT token, chat, number, LENGTH(body) FROM messages WHERE (token, chat, number) IN ({_groups(some)})",
            _flat(some),
        )
        sizes |= {row[:3]: row[3] for row in cursor.fetchall()}
    return sizes


def mark_of(token: str, chat: int, number: int) -> _Place:
    """The place that marks a message as deleted, in a note that has its place too; or of such a mark, the message's.
    A version before this one reads it as a message that is not there.
    """
    return token, chat, -number


def _documents(cursor: Any, places: Sequence[_Place], gone: Set[_Place]) -> list[Document]:
    """The messages at these places as they are now. A message that is not there is in the result only if it is
    ``gone``: another may still come under its number otherwise, as the number was of a command that was not stored.
    """
    cursor.execute(
        f"SELECT token, chat, number, body, {_VERSION}, {_EDITED} FROM messages"
        f" WHERE (token, chat, number) IN ({_groups(places)})",
        _flat(places),
    )
    found = {row[:3]: row[3:] for row in cursor.fetchall()}
    there = [place for place in places if place in found or place in gone]
    return [_document(place, *found.get(place, (None, _GONE, 0))) for place in there]


def _fitting(sizes: Sequence[int], most: int) -> int:
    """How many of the first sizes add up to at most ``most``; at least one."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if total > most:
            return max(1, count)
    return len(sizes)


def _document(place: _Place, body: str | None, version: int, edited: int) -> Document:
    return Document(ChatKey(*place[:2]), place[2], body, version, edited=bool(edited))


def _groups(rows: Sequence[tuple[Any, ...]]) -> str:
    return marks(rows, f"({marks(rows[0])})")


def _flat(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [value for row in rows for value in row]
