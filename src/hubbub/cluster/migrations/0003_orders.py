"""The order of changes, and openings in progress. docs/decisions/0007-cluster-protocol.md, rules 5 and 6."""

from hubbub.cluster.columns import add_column

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # changed: the order of the last change applied to the message; 0 for none, or one from before there were orders.
    add_column("messages", "changed", "BIGINT NOT NULL DEFAULT 0")
    # opening: the epoch that is being opened, while nothing was applied to the chat since; else 0.
    add_column("chats", "opening", "BIGINT NOT NULL DEFAULT 0")
