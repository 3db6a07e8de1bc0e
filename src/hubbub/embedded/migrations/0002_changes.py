"""The changes that the search index has to read."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # A row for each batch that changed messages: pairs of chat_id and number, 64-bit integers in the machine's order.
    # noted_at (ms) shows how far an index is behind. Rows are deleted once they are indexed, except the last one, which
    # keeps seq rising.
    op.execute(
        "CREATE TABLE changes (seq INTEGER PRIMARY KEY, noted_at INTEGER NOT NULL, messages BLOB NOT NULL) STRICT"
    )
