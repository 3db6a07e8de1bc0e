"""Erases the content of deleted applications and chats, a slice at a time, so that no write waits for long."""

from __future__ import annotations

import sqlite3
from array import array

from hubbub.embedded.following import note_changes

_ROWS = 500  # some milliseconds


def erase_some(connection: sqlite3.Connection) -> bool:
    """Erase one slice, in the current transaction. Returns False when nothing is left to erase."""
    found = connection.execute("SELECT id FROM erasures WHERE kind = 'chat' LIMIT 1").fetchone()
    if found is not None:
        if not _chat(connection, found[0]):
            connection.execute("DELETE FROM erasures WHERE kind = 'chat' AND id = ?", found)
            note_changes(connection, array("q", (found[0], 0)))  # the search index has texts of it too
        return True
    found = connection.execute("SELECT id, at FROM erasures WHERE kind = 'application' LIMIT 1").fetchone()
    if found is not None:
        if not _application(connection, *found):
            connection.execute("DELETE FROM erasures WHERE kind = 'application' AND id = ?", found[:1])
        return True
    return False


def _chat(connection: sqlite3.Connection, chat_id: int) -> bool:
    """Erase a slice of a chat. Returns whether there was anything left to erase."""
    messages = connection.execute(
        "DELETE FROM messages WHERE chat_id = ?1 AND number IN"
        " (SELECT number FROM messages WHERE chat_id = ?1 ORDER BY number LIMIT ?2)",
        (chat_id, _ROWS),
    ).rowcount
    return bool(
        messages
        or connection.execute(
            "DELETE FROM idempotency_keys WHERE chat_id = ?1 AND (sender_id, key) IN"
            " (SELECT sender_id, key FROM idempotency_keys WHERE chat_id = ?1 LIMIT ?2)",
            (chat_id, _ROWS),
        ).rowcount
    )


def _application(connection: sqlite3.Connection, application_id: int, at: int) -> bool:
    """Erase a slice of an application; its chats are marked as deleted, and erased like any other deleted chat. Returns
    whether there was anything left to do."""
    chats = connection.execute(
        "UPDATE chats SET deleted = 1, title = NULL WHERE id IN"
        " (SELECT id FROM chats WHERE application_id = ? AND NOT deleted LIMIT ?) RETURNING id",
        (application_id, _ROWS),
    ).fetchall()
    connection.executemany("INSERT INTO erasures (kind, id, at) VALUES ('chat', ?, ?)", [(*row, at) for row in chats])
    return bool(
        chats
        or connection.execute(
            "DELETE FROM members WHERE application_id = ?1 AND user_id IN"
            " (SELECT user_id FROM members WHERE application_id = ?1 LIMIT ?2)",
            (application_id, _ROWS),
        ).rowcount
        or connection.execute(
            "DELETE FROM invites WHERE id IN (SELECT id FROM invites WHERE application_id = ? LIMIT ?)",
            (application_id, _ROWS),
        ).rowcount
    )
