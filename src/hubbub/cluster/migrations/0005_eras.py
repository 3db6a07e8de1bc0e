"""What ends all sessions of a user at once. See chat.model.User."""

from hubbub.cluster.columns import add_column

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # Empty until it is first used: the tokens of earlier versions carry none.
    add_column("users", "era", "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT ''")
