"""Operators, the links that make their accounts or set a password, and invites."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE users ADD COLUMN operator INTEGER NOT NULL DEFAULT 0")
    # hash: of the code that the link has, SHA-256. An empty email is any. A new link for the same takes the place of
    # the old one.
    op.execute(
        """
        CREATE TABLE links (
            purpose    TEXT NOT NULL CHECK (purpose IN ('operator', 'reset')),
            email      TEXT NOT NULL,
            hash       BLOB NOT NULL UNIQUE,
            expires_at INTEGER NOT NULL,
            PRIMARY KEY (purpose, email)
        ) STRICT, WITHOUT ROWID
        """
    )
    op.execute(
        """
        CREATE TABLE invites (
            id             INTEGER PRIMARY KEY,
            application_id INTEGER NOT NULL REFERENCES applications (id),
            ref            TEXT NOT NULL UNIQUE,
            hash           BLOB NOT NULL UNIQUE,
            role           TEXT NOT NULL CHECK (role IN ('admin', 'member')),
            uses           INTEGER NOT NULL,
            used           INTEGER NOT NULL DEFAULT 0 CHECK (used <= uses),
            created_at     INTEGER NOT NULL,
            expires_at     INTEGER NOT NULL,
            created_by     INTEGER NOT NULL REFERENCES users (id)
        ) STRICT
        """
    )
    op.execute("CREATE INDEX invites_by_application ON invites (application_id, id)")
