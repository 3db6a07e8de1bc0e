"""Reads all data of a data folder's database, row by row, for a move to a cluster. See hubbub.move."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from hubbub.embedded.migrate import migrate
from hubbub.schema.rows import (
    TABLES,
    Application,
    Chat,
    EndedSession,
    Erasure,
    FormerMember,
    IdempotencyKey,
    Invite,
    Link,
    Member,
    Message,
    Row,
    User,
)

# A cluster lists a user's applications by their creation time, the embedded mode by their ids. If the clock was set
# back between two, the later one gets the time of the earlier one, so that the list keeps its order.
_APPLICATIONS = (
    "SELECT id, token, name, max(created_at) OVER (ORDER BY id) AS created_at, chats_count, deleted FROM applications"
)
# CROSS JOIN: SQLite reads the table on the left in the order of its key, and sorts nothing.
_OF_CHAT = "CROSS JOIN chats c ON c.id = m.chat_id CROSS JOIN applications a ON a.id = c.application_id"

# The columns are in the order of the kind's fields. A list that a cluster orders by when rows came has them in order.
SELECTS: dict[type[Row], str] = {
    User: "SELECT id, ref, email, name, password_hash, created_at, era, deleted, operator FROM users ORDER BY id",
    EndedSession: "SELECT session, expires_at FROM ended_sessions",
    Application: (
        "SELECT token, name, created_at, last, last - chats_count, deleted FROM (SELECT *,"
        " coalesce((SELECT max(c.number) FROM chats c WHERE c.application_id = a.id), 0) AS last"
        f" FROM ({_APPLICATIONS}) a) ORDER BY id"
    ),
    Member: (
        f"SELECT a.token, m.user_id, m.role, a.created_at FROM ({_APPLICATIONS}) a"
        " CROSS JOIN members m ON m.application_id = a.id ORDER BY a.id, m.user_id"
    ),
    # Users who left an application that still has messages of theirs. With these rows a cluster finds their entries in
    # Redis.
    FormerMember: (
        "SELECT DISTINCT a.token, m.sender_id"
        f" FROM messages m {_OF_CHAT} CROSS JOIN users u ON u.id = m.sender_id WHERE NOT u.deleted AND NOT EXISTS"
        " (SELECT 1 FROM members n WHERE n.user_id = m.sender_id AND n.application_id = a.id)"
    ),
    Link: "SELECT purpose, email, hash, expires_at FROM links",
    Invite: (
        "SELECT a.token, i.ref, i.hash, i.role, i.uses, i.used, i.created_at, i.expires_at, i.created_by"
        " FROM invites i CROSS JOIN applications a ON a.id = i.application_id ORDER BY i.id"
    ),
    Chat: (
        "SELECT a.token, c.number, c.title, c.created_at, c.counted, c.counted_to, c.last_deleted, c.deleted"
        " FROM chats c CROSS JOIN applications a ON a.id = c.application_id ORDER BY c.application_id, c.number"
    ),
    Message: (
        "SELECT a.token, c.number, m.number, m.sender_id, u.name, m.body, m.created_at, m.edited_at"
        f" FROM messages m {_OF_CHAT} CROSS JOIN users u ON u.id = m.sender_id ORDER BY m.chat_id, m.number"
    ),
    IdempotencyKey: (
        "SELECT a.token, c.number, m.sender_id, m.key, m.number, m.body_hash"
        f" FROM idempotency_keys m {_OF_CHAT} ORDER BY m.chat_id, m.sender_id, m.key"
    ),
    Erasure: (
        "SELECT e.kind, coalesce(a.token, ''), coalesce(c.number, 0), iif(e.kind = 'user', e.id, 0), e.at / 1000"
        " FROM erasures e LEFT JOIN chats c ON e.kind = 'chat' AND c.id = e.id LEFT JOIN applications a"
        " ON a.id = iif(e.kind = 'chat', c.application_id, iif(e.kind = 'application', e.id, NULL))"
    ),
}


class Rows:
    """The rows of a database, a context manager. While it is open, nothing can write to the database, not even a
    command that does not lock the folder as DataFolder does.

    Every method may raise sqlite3.Error.
    """

    def __init__(self, database: Path) -> None:
        """Bring the schema up to date. Raises SchemaTooNew."""
        migrate(database)
        self._connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def count(self, kind: type[Row]) -> int:
        """Of the kind's table, whether or not its rows lead to others that are there."""
        source = f"({SELECTS[kind]})" if kind is FormerMember else TABLES[kind]
        return int(self._connection.execute(f"SELECT COUNT(*) FROM {source}").fetchone()[0])

    def of(self, kind: type[Row]) -> Iterator[Row]:
        """All rows of the kind, read one by one as the caller iterates."""
        for row in self._connection.execute(SELECTS[kind]):
            yield kind(*row)
