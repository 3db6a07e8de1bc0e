"""``hubbub move``: the data of a service on one machine, which is stopped, into a cluster's empty database.

The steps:

1. The data folder is taken with the lock that ``hubbub serve`` holds, until the end, and its database is locked for
   writing. So nobody can serve it, and the data does not change. A folder that is being served is refused.
2. In one transaction the database gets the session secret of the folder and a note that a move is unfinished. The move
   is refused where there is a secret already (an API process asks for one before it serves anybody), where there is any
   row, and while a process of the cluster runs.
3. While the note is there, no process of the cluster starts (``Processes.kept``). So only this move writes to the
   database; a second move is refused by a lock that ends with the first one's session.
4. Every table is read once, in order, and written in batches, each in a transaction: a batch is there whole or not at
   all. A move that finds the note empties the tables and starts over, for the folder may have been served in between.
5. The rows that the database has are counted and compared with the folder's own count of each table. One more or one
   less, and the move ends here.
6. The folder is marked as moved, on disk, and from then on ``hubbub serve`` refuses it; then the note is taken away.

Why nothing is lost or doubled: what is counted in step 5 is each row once, as keys are unique in both databases and no
column takes a value that it would have to change (strict mode). Why nobody serves a part, and no two Hubbubs serve the
same data: the note goes last, after the mark, so whenever a move is killed, either the folder can be served and the
database can't, or neither can until the move is run again, or the database alone can.

Why no client notices: tokens, public ids, numbers, passwords, the secret that signs sessions, the sessions that were
ended, and Idempotency-Keys, also those of deleted messages, are the same. A chat's next number is above all stored and
deleted ones (``last_number``). Internal ids of users stay too; those of applications and chats, which a cluster does
not have, become the token and the number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from hubbub.cluster.load import Load, LoadFailed
from hubbub.embedded.data_folder import DataFolder
from hubbub.embedded.rows import Rows
from hubbub.logs import without_passwords
from hubbub.schema.rows import TABLES, Message, Row
from hubbub.settings import Settings

_ROWS = 2000
_BYTES = 4 * 1024 * 1024
_TELL_EVERY_S = 5.0


def move(settings: Settings, tell: Callable[[str], None]) -> dict[str, int]:
    """Move all of ``settings.data`` to ``settings.mysql_url``; ``tell`` gets a line for each table, and every few
    seconds for a long one. Blocks.

    Returns:
        How many rows there are in each table, as both sides counted them.

    Raises:
        FolderUnusable, LoadFailed, SchemaTooNew: the text says why, and what to do.
        sqlite3.Error: the folder's database can't be read.
    """
    folder = DataFolder.open_existing(settings.data)
    try:
        with Rows(folder.database) as rows, Load(settings.mysql_url) as load:
            wanted = {kind: rows.count(kind) for kind in TABLES}
            load.begin(folder.secret.decode(), len(settings.redis_urls))
            for kind, count in wanted.items():
                _copy(rows, load, kind, count, tell)
            tell("counting what the database has")
            found = {kind: load.count(kind) for kind in TABLES}
            if found != wanted:
                differ = ", ".join(
                    f"{TABLES[kind]}: {found[kind]} and not {wanted[kind]}"
                    for kind in TABLES
                    if found[kind] != wanted[kind]
                )
                raise LoadFailed(
                    f"The database does not have as many rows as {settings.data} ({differ}). Please report it. Serve "
                    "the folder as before: no process of the cluster starts on this database."
                )
            folder.mark_moved(without_passwords(settings.mysql_url))
            load.finish()
    finally:
        folder.close()
    return {TABLES[kind]: count for kind, count in wanted.items()}


def _copy(rows: Rows, load: Load, kind: type[Row], count: int, tell: Callable[[str], None]) -> None:
    done, told_at = 0, time.monotonic()
    for batch in _batches(rows.of(kind)):
        load.add(kind, batch)
        done += len(batch)
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            tell(f"{TABLES[kind]}: {done} of {count}")
    tell(f"{TABLES[kind]}: {done}")


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Bounded in rows and in bytes."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.body.encode()) if isinstance(row, Message) else 0  # nothing else is long
        if len(batch) == _ROWS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
