"""What the search index has to look at again."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Written in the transaction that changes the messages, gone when a search server has them: position is that of the
    # shard, messages has token, chat and number of each as msgpack. noted_at (ms) tells how far the index is behind.
    # The writer that indexes locks the rows it takes.
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
