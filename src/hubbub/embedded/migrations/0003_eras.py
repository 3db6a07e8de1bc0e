"""What ends all sessions of a user at once. See chat.model.User."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Empty until it is first used: the tokens of earlier versions carry none.
    op.execute("ALTER TABLE users ADD COLUMN era TEXT NOT NULL DEFAULT ''")
