"""The protocol's state in the database. docs/decisions/0007-cluster-protocol.md, rules 1, 3, 6 and 9."""

from alembic import op

from hubbub.cluster.columns import add_column

revision = "0004"
down_revision = "0003"

_ASCII = "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL"
_OPTIONS = "ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin"


def upgrade() -> None:
    # Commands that could not be stored, one row each; command is a delivery of it alone, as encoded in the queue.
    # acknowledged is false if no client can have been told that it was accepted.
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS set_aside (
            id           BIGINT AUTO_INCREMENT PRIMARY KEY,
            shard        INT NOT NULL,
            at           BIGINT NOT NULL,
            kind         VARCHAR(16) CHARACTER SET ascii NOT NULL,
            token        {_ASCII},
            chat         BIGINT NOT NULL,
            number       BIGINT NOT NULL,
            reason       VARCHAR(1000) NOT NULL,
            acknowledged BOOLEAN NOT NULL,
            command      MEDIUMBLOB NOT NULL,
            KEY by_message (token, chat, number)
        ) {_OPTIONS}
        """
    )
    # Deliveries that never arrived: state is stopped, orphaned (those behind are set aside) or accepted (skipped).
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS holes (
            shard     INT NOT NULL,
            publisher {_ASCII},
            expected  BIGINT NOT NULL,
            found     BIGINT NOT NULL,
            state     VARCHAR(16) CHARACTER SET ascii NOT NULL,
            at        BIGINT NOT NULL,
            PRIMARY KEY (shard, publisher, expected)
        ) {_OPTIONS}
        """
    )
    # Each data set that a Redis server (slot) was found to hold, and when (ms). The newest of a slot is valid once it
    # is used.
    op.execute(
        f"""
        CREATE TABLE IF NOT EXISTS generations (
            slot       INT NOT NULL,
            generation BIGINT NOT NULL,
            identity   VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            made_at    BIGINT NOT NULL,
            used       BOOLEAN NOT NULL DEFAULT FALSE,
            PRIMARY KEY (slot, generation)
        ) {_OPTIONS}
        """
    )
    # The generations that an API process holds, by slot, as JSON.
    add_column("processes", "knows", "VARBINARY(2000) NOT NULL DEFAULT ''")
