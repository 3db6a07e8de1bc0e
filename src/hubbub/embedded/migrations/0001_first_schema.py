"""The first schema."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = (
    """
    CREATE TABLE users (
        id            INTEGER PRIMARY KEY,
        ref           TEXT NOT NULL UNIQUE,
        email         TEXT NOT NULL UNIQUE,
        name          TEXT NOT NULL,
        password_hash TEXT NOT NULL,
        created_at    INTEGER NOT NULL
    ) STRICT
    """,
    # Sessions that were ended before they expired. A row may be deleted long after expires_at, see chat.limits.
    """
    CREATE TABLE ended_sessions (
        session    TEXT PRIMARY KEY,
        expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE applications (
        id          INTEGER PRIMARY KEY,
        token       TEXT NOT NULL UNIQUE,
        name        TEXT NOT NULL,
        created_at  INTEGER NOT NULL,
        chats_count INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    # The key's order serves "my applications, newest first" as one index range.
    """
    CREATE TABLE members (
        user_id        INTEGER NOT NULL REFERENCES users (id),
        application_id INTEGER NOT NULL REFERENCES applications (id),
        role           TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
        PRIMARY KEY (user_id, application_id)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX members_by_application ON members (application_id)",
    # counted: how many messages numbered up to counted_to exist. The count of a chat is counted plus the rows above
    # counted_to, so it is exact at every moment and after every crash, however seldom counted_to moves.
    # last_deleted: the highest number whose message was deleted; with the highest one stored it bounds all ever given.
    """
    CREATE TABLE chats (
        id             INTEGER PRIMARY KEY,
        application_id INTEGER NOT NULL REFERENCES applications (id),
        number         INTEGER NOT NULL,
        title          TEXT,
        created_at     INTEGER NOT NULL,
        counted        INTEGER NOT NULL DEFAULT 0,
        counted_to     INTEGER NOT NULL DEFAULT 0,
        last_deleted   INTEGER NOT NULL DEFAULT 0,
        UNIQUE (application_id, number)
    ) STRICT
    """,
    # The key's order serves every list of messages as one range of the table itself.
    """
    CREATE TABLE messages (
        chat_id    INTEGER NOT NULL,
        number     INTEGER NOT NULL,
        sender_id  INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        body       TEXT NOT NULL,
        edited_at  INTEGER,
        PRIMARY KEY (chat_id, number)
    ) STRICT, WITHOUT ROWID
    """,
    # A table of its own, so that a key outlives its message: a retry after a delete must add nothing.
    """
    CREATE TABLE idempotency_keys (
        chat_id   INTEGER NOT NULL,
        sender_id INTEGER NOT NULL,
        key       TEXT NOT NULL,
        number    INTEGER NOT NULL,
        body_hash BLOB NOT NULL,
        PRIMARY KEY (chat_id, sender_id, key)
    ) STRICT, WITHOUT ROWID
    """,
)


def upgrade() -> None:
    for table in TABLES:
        op.execute(table)
