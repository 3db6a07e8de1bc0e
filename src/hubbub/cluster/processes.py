"""The state that the processes of a cluster share in the database: which of them are alive, shared values, and the
number of shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from hubbub.chat.errors import Unavailable
from hubbub.cluster.database import Database

UNFINISHED_MOVE = "unfinished move"  # there while a move into the database is not complete, see cluster.load
SESSION_KEY = "session secret"  # the name of the value
ALIVE_S = 15  # a process without a heartbeat for longer counts as gone


class Generation(NamedTuple):
    """A slot's newest generation and its data set. ``used`` says that it is in use; ``known``, that every other API
    process that was seen lately holds it."""

    generation: int
    identity: str
    used: bool
    known: bool


class OtherServers(Exception):
    """The processes of the cluster don't agree on their Redis servers."""


class Processes:
    """The shared tables. Every method blocks, and raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def kept(self, name: str, value: str) -> str:
        """The value of the whole cluster under this name; ``value`` is stored if there was none.

        Every process calls this when it starts, so none serves a database whose move is not complete (Unavailable
        then). This is checked after the value is read: a move writes the session secret in the transaction that begins
        it.
        """

        def work(cursor: Any) -> str:
            cursor.execute("INSERT IGNORE INTO kept (name, value) VALUES (%s,%s)", (name, value))
            cursor.execute("SELECT name, value FROM kept WHERE name IN (%s,%s)", (name, UNFINISHED_MOVE))
            found = dict(cursor.fetchall())
            if UNFINISHED_MOVE in found:
                raise Unavailable(
                    "The database has a part of another service's data: `hubbub move` is running or was interrupted. "
                    "Wait for it, or run it again."
                )
            return str(found[name])

        return self._database.run(work)

    def keep(self, name: str, value: str) -> None:
        """Change the value under the name."""
        self._database.run(lambda cursor: cursor.execute("UPDATE kept SET value = %s WHERE name = %s", (value, name)))

    def shards(self, wanted: int) -> int:
        """The cluster's number of shards: the setting of the first process, until it is raised."""
        return int(self.kept("shards", str(wanted)))

    def heartbeat(self, kind: str, name: str | None = None) -> int:
        """Record that the process of this kind and name is running; without a name, record nothing.

        Returns:
            How many processes of the kind are running.
        """

        def work(cursor: Any) -> int:
            if name is not None:
                cursor.execute(
                    "INSERT INTO processes (kind, name, seen_at) VALUES (%s, %s, UNIX_TIMESTAMP())"
                    " ON DUPLICATE KEY UPDATE seen_at = VALUES(seen_at)",
                    (kind, name),
                )
            cursor.execute("DELETE FROM processes WHERE seen_at < UNIX_TIMESTAMP() - %s", (ALIVE_S,))
            cursor.execute("SELECT COUNT(*) FROM processes WHERE kind = %s", (kind,))
            return int(cursor.fetchone()[0])

        return self._database.run(work)

    def gone(self, kind: str, name: str) -> None:
        self._database.run(
            lambda cursor: cursor.execute("DELETE FROM processes WHERE kind = %s AND name = %s", (kind, name))
        )

    def reached(self, publisher: str) -> int:
        """The number of shards in which the first delivery of this publisher was applied."""

        def work(cursor: Any) -> int:
            cursor.execute("SELECT COUNT(*) FROM publishers WHERE publisher = %s", (publisher,))
            return int(cursor.fetchone()[0])

        return self._database.run(work, commit=False)

    # Generations, see cluster.generations
    # ------------------------------------------------------------------------------

    def generations(self) -> dict[int, tuple[int, str]]:
        """The newest generation of each slot, and the data set that it names."""

        def work(cursor: Any) -> dict[int, tuple[int, str]]:
            return {slot: (generation, identity) for slot, generation, identity, *_ in _newest(cursor)}

        return self._database.run(work, commit=False)

    def beat(self, name: str, holds: Mapping[int, int]) -> dict[int, Generation]:
        """Record that an API process is alive, and has held these generations (by slot) since an earlier beat. Returns
        the newest generations."""

        def work(cursor: Any) -> dict[int, Generation]:
            cursor.execute(
                "INSERT INTO processes (kind, name, seen_at, knows) VALUES ('api', %s, UNIX_TIMESTAMP(), %s)"
                " ON DUPLICATE KEY UPDATE seen_at = VALUES(seen_at), knows = VALUES(knows)",
                (name, msgspec.json.encode({str(slot): generation for slot, generation in holds.items()})),
            )
            newest = _newest(cursor)
            cursor.execute("SELECT knows FROM processes WHERE kind = 'api' AND name <> %s", (name,))
            others = [msgspec.json.decode(row[0] or b"{}", type=dict[str, int]) for row in cursor.fetchall()]
            return {
                slot: Generation(made, identity, used, all(known.get(str(slot), 0) >= made for known in others))
                for slot, made, identity, used in newest
            }

        return self._database.run(work)

    def redis_servers(self, count: int) -> None:
        """Record the number of Redis servers that an API process is about to use. If it changes, an application may be
        in another server. So no running process may use the old number, and the servers' data is no longer valid.

        Raises:
            OtherServers: API processes are running that use another number.
        """

        def work(cursor: Any) -> int | None:
            # INSERT IGNORE would lock a row that is there for sharing. Two processes that start at once would then wait
            # for each other with the next statement.
            cursor.execute(
                "INSERT INTO kept (name, value) VALUES ('redis servers', %s) ON DUPLICATE KEY UPDATE value = value",
                (str(count),),
            )
            cursor.execute("SELECT value FROM kept WHERE name = 'redis servers' FOR UPDATE")
            kept = int(cursor.fetchone()[0])
            if kept == count:
                return None
            cursor.execute(
                "SELECT COUNT(*) FROM processes WHERE kind = 'api' AND seen_at >= UNIX_TIMESTAMP() - %s", (ALIVE_S,)
            )
            if cursor.fetchone()[0]:
                return kept
            cursor.execute("UPDATE kept SET value = %s WHERE name = 'redis servers'", (str(count),))
            for slot, generation, *_ in _newest(cursor):
                note_generation(cursor, slot, generation + 1, "")
            return None

        kept = self._database.run(work)
        if kept is not None:
            raise OtherServers(
                f"API processes are running that use {kept} Redis servers, but this one is set to use {count}. "
                "Name the same servers in redis_url, or stop those processes first."
            )

    def make_generation(self, slot: int, generation: int, identity: str) -> None:
        """See ``note_generation``."""
        self._database.run(lambda cursor: note_generation(cursor, slot, generation, identity))

    def use_generation(self, slot: int, generation: int) -> None:
        """Allow all processes to use the generation."""
        self._database.run(
            lambda cursor: cursor.execute(
                "UPDATE generations SET used = TRUE WHERE slot = %s AND generation = %s", (slot, generation)
            )
        )


def note_generation(cursor: Any, slot: int, generation: int, identity: str) -> None:
    """Record the slot's newest data set, unless another process was first. An empty identity means no data set."""
    cursor.execute(
        "INSERT IGNORE INTO generations (slot, generation, identity, made_at)"
        " VALUES (%s, %s, %s, ROUND(UNIX_TIMESTAMP(NOW(3)) * 1000))",
        (slot, generation, identity),
    )


def _newest(cursor: Any) -> list[tuple[int, int, str, bool]]:
    """The slots, each with its newest generation, its data set, and whether it is in use."""
    cursor.execute(
        "SELECT g.slot, g.generation, g.identity, g.used FROM generations g"
        " JOIN (SELECT slot, MAX(generation) AS generation FROM generations GROUP BY slot) n"
        " ON n.slot = g.slot AND n.generation = g.generation"
    )
    return [(slot, made, identity, bool(used)) for slot, made, identity, used in cursor.fetchall()]
