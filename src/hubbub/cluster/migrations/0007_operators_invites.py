"""Operators, the links that make their accounts or set a password, and invites."""

from alembic import op

from hubbub.cluster.columns import add_column

revision = "0007"
down_revision = "0006"

_ASCII = "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL"
_OPTIONS = "ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin"


def upgrade() -> None:
    add_column("users", "operator", "BOOLEAN NOT NULL DEFAULT FALSE")
    # hash: of the code that the link has, SHA-256. An empty email is any. A new link for the same takes the place of
    # the old one.
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS links (
            purpose    {_ASCII},
            email      VARCHAR(320) NOT NULL,
            hash       BINARY(32) NOT NULL,
            expires_at BIGINT NOT NULL,
            PRIMARY KEY (purpose, email),
            UNIQUE KEY by_hash (hash),
            KEY by_expiry (expires_at)
        ) {_OPTIONS}
        """
    )
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS invites (
            id         BIGINT AUTO_INCREMENT PRIMARY KEY,
            token      {_ASCII},
            ref        {_ASCII},
            hash       BINARY(32) NOT NULL,
            role       ENUM('admin', 'member') NOT NULL,
            uses       INT NOT NULL,
            used       INT NOT NULL DEFAULT 0,
            created_at BIGINT NOT NULL,
            expires_at BIGINT NOT NULL,
            created_by BIGINT NOT NULL,
            UNIQUE KEY by_hash (hash),
            UNIQUE KEY by_ref (token, ref),
            KEY by_application (token, id),
            KEY by_expiry (expires_at)
        ) {_OPTIONS}
        """
    )
