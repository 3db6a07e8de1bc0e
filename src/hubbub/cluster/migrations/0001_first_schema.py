"""The first schema. The data of every application is keyed by its token first, so that it can be split by token.

Tokens, emails and keys are compared byte by byte (binary collations); texts are utf8mb4.
"""

from alembic import op

revision = "0001"
down_revision = None

_ASCII = "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL"
_OPTIONS = "ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin"

TABLES = (
    f"""
    CREATE TABLE users (
        id            BIGINT AUTO_INCREMENT PRIMARY KEY,
        ref           {_ASCII},
        email         VARCHAR(320) NOT NULL,
        name          VARCHAR(255) NOT NULL,
        password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        created_at    BIGINT NOT NULL,
        UNIQUE KEY by_ref (ref),
        UNIQUE KEY by_email (email)
    ) {_OPTIONS}
    """,
    # Sessions that were ended before they expired. A row may be deleted long after expires_at, see chat.limits.
    f"""
    CREATE TABLE ended_sessions (
        session    {_ASCII} PRIMARY KEY,
        expires_at BIGINT NOT NULL,
        KEY by_expiry (expires_at)
    ) {_OPTIONS}
    """,
    f"""
    CREATE TABLE applications (
        token       {_ASCII} PRIMARY KEY,
        name        VARCHAR(255) NOT NULL,
        created_at  BIGINT NOT NULL,
        chats_count BIGINT NOT NULL DEFAULT 0
    ) {_OPTIONS}
    """,
    # app_created_at repeats the application's created_at, so that "my applications, newest first" is one index range;
    # position orders applications that were created in the same millisecond.
    f"""
    CREATE TABLE members (
        token          {_ASCII},
        user_id        BIGINT NOT NULL,
        role           ENUM('owner', 'admin', 'member') NOT NULL,
        app_created_at BIGINT NOT NULL,
        position       BIGINT NOT NULL AUTO_INCREMENT,
        PRIMARY KEY (token, user_id),
        KEY by_user (user_id, app_created_at, position),
        KEY by_position (position)
    ) {_OPTIONS}
    """,
    # counted: how many messages numbered up to counted_to exist. The count of a chat is counted plus the rows above
    # counted_to, so it is exact at every moment and after every crash, however seldom counted_to moves.
    # last_number: a bound of the numbers given that no row shows any more (deleted messages, dead letters).
    # epoch: the last epoch that was begun for the chat; live_epoch: the last one that became live.
    f"""
    CREATE TABLE chats (
        token       {_ASCII},
        number      BIGINT NOT NULL,
        title       VARCHAR(255),
        created_at  BIGINT NOT NULL,
        counted     BIGINT NOT NULL DEFAULT 0,
        counted_to  BIGINT NOT NULL DEFAULT 0,
        last_number BIGINT NOT NULL DEFAULT 0,
        epoch       BIGINT NOT NULL DEFAULT 1,
        live_epoch  BIGINT NOT NULL DEFAULT 1,
        PRIMARY KEY (token, number)
    ) {_OPTIONS}
    """,
    # The clustered key's order serves every list of messages as one range of the table itself. The sender's name is
    # that of when it was sent; readers get the user's as it is now.
    f"""
    CREATE TABLE messages (
        token       {_ASCII},
        chat        BIGINT NOT NULL,
        number      BIGINT NOT NULL,
        sender_id   BIGINT NOT NULL,
        sender_name VARCHAR(255) NOT NULL,
        body        MEDIUMTEXT NOT NULL,
        created_at  BIGINT NOT NULL,
        edited_at   BIGINT,
        PRIMARY KEY (token, chat, number)
    ) {_OPTIONS}
    """,
    # A table of its own, so that a key outlives its message: a retry after a delete must add nothing.
    f"""
    CREATE TABLE idempotency_keys (
        token     {_ASCII},
        chat      BIGINT NOT NULL,
        sender_id BIGINT NOT NULL,
        `key`     VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        number    BIGINT NOT NULL,
        body_hash VARBINARY(32) NOT NULL,
        PRIMARY KEY (token, chat, sender_id, `key`)
    ) {_OPTIONS}
    """,
    # How far each shard of the queue has been applied: position counts transactions; publishers has, for each process
    # that publishes, the last of its deliveries that was applied, so that one which comes again is known.
    f"""
    CREATE TABLE shards (
        shard    INT PRIMARY KEY,
        position BIGINT NOT NULL
    ) {_OPTIONS}
    """,
    f"""
    CREATE TABLE publishers (
        shard      INT NOT NULL,
        publisher  {_ASCII},
        sequence   BIGINT NOT NULL,
        applied_at BIGINT NOT NULL,
        PRIMARY KEY (shard, publisher)
    ) {_OPTIONS}
    """,
    # Values that all processes of a cluster share: the key that signs sessions, the number of shards.
    f"""
    CREATE TABLE kept (
        name  {_ASCII} PRIMARY KEY,
        value VARCHAR(255) NOT NULL
    ) {_OPTIONS}
    """,
    # The processes that are alive: a writer must know its share of the shards, and their number can't change under an
    # API process.
    f"""
    CREATE TABLE processes (
        kind    VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        name    {_ASCII},
        seen_at BIGINT NOT NULL,
        PRIMARY KEY (kind, name)
    ) {_OPTIONS}
    """,
)


def upgrade() -> None:
    for table in TABLES:
        op.execute(table)
