"""What was deleted: rows that stay as a mark, and what is still to be erased."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # The row of a deleted thing stays, without its texts: no id and no number of a chat is ever given again.
    for table in ("users", "applications", "chats"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1))")
    # What was deleted and has rows left: id is that of an application, of a chat, or of a user whose messages go.
    # at (ms) is when it was deleted.
    op.execute(
        """
        CREATE TABLE erasures (
            kind TEXT NOT NULL CHECK (kind IN ('application', 'chat', 'user')),
            id   INTEGER NOT NULL,
            at   INTEGER NOT NULL,
            PRIMARY KEY (kind, id)
        ) STRICT, WITHOUT ROWID
        """
    )
