"""The changes that the search index has to read."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # A row is added in the transaction that changes the messages, and deleted when the search server has them. position
    # is the shard's; messages has the token, chat and number of each as msgpack. noted_at (ms) shows how far the index
    # is behind. A writer that indexes locks the rows that it processes.
    op.execute(
        """
        CREATE TABLE changes (
            shard    INT NOT NULL,
            position BIGINT NOT NULL,
            noted_at BIGINT NOT NULL,
            messages MEDIUMBLOB NOT NULL,
            PRIMARY KEY (shard, position)
        ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
        """
    )
