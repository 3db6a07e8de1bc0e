"""What was deleted, and what is still to be erased of it. docs/decisions/0007-cluster-protocol.md, Deletions."""

from alembic import op

from hubbub.cluster.columns import add_column

revision = "0006"
down_revision = "0005"

_ASCII = "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL"
_OPTIONS = "ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin"


def upgrade() -> None:
    # The row of a deleted thing stays, without its texts: it decides what happens to commands that are still queued,
    # and no number of a chat is ever given again.
    for table in ("users", "applications", "chats"):
        add_column(table, "deleted", "BOOLEAN NOT NULL DEFAULT FALSE")
    # chats_count is the number of the last chat: so many of them are deleted.
    add_column("applications", "chats_deleted", "BIGINT NOT NULL DEFAULT 0")
    # What was deleted and has rows left. kind is application, chat (of token) or user (whose messages go), or name: in
    # the application the user's messages have another sender's name now. at is when, in seconds since 1970. who
    # erases a user's messages, of the API processes, until then.
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS erasures (
            id      BIGINT AUTO_INCREMENT PRIMARY KEY,
            kind    VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            token   {_ASCII},
            chat    BIGINT NOT NULL DEFAULT 0,
            user_id BIGINT NOT NULL DEFAULT 0,
            at      BIGINT NOT NULL,
            who     {_ASCII} DEFAULT '',
            until   BIGINT NOT NULL DEFAULT 0,
            UNIQUE KEY by_what (kind, token, chat, user_id),
            KEY by_user (user_id)
        ) {_OPTIONS}
        """
    )
    # Users who have left an application: with these rows their messages in Redis are found.
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS former_members (
            token   {_ASCII},
            user_id BIGINT NOT NULL,
            PRIMARY KEY (token, user_id),
            KEY by_user (user_id)
        ) {_OPTIONS}
        """
    )
