"""Loads all data of another Hubbub into a cluster's empty database. hubbub.move explains why nothing is lost."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pymysql
from sqlalchemy.exc import DBAPIError

from hubbub.cluster.database import AtFault, meaning
from hubbub.cluster.engine import engine_of
from hubbub.cluster.migrate import migrate
from hubbub.cluster.processes import ALIVE_S, SESSION_KEY, UNFINISHED_MOVE, note_generation
from hubbub.schema.rows import TABLES, Row

_ANSWER_S = 3600  # counting a large table takes a while
_SILENT_S = 3600
_LOCK_S = 5  # the server may need a moment to notice that an earlier load was killed


class LoadFailed(Exception):
    """The text says why, and what to do."""


class Load:
    """The load into a cluster's database, a context manager. One database session does everything and holds a lock. So
    a second load into the same database is refused, and a transaction ends when the session is lost.

    Every method blocks, and raises LoadFailed.
    """

    def __init__(self, url: str) -> None:
        """Bring the schema up to date. Raises SchemaTooNew."""
        self._engine = engine_of(url, answer_s=_ANSWER_S)
        try:
            migrate(self._engine)
            self._connection = self._engine.raw_connection()
        except (DBAPIError, pymysql.err.Error) as error:
            self._engine.dispose()
            said = error.orig if isinstance(error, DBAPIError) else error
            raise LoadFailed(f"The database can't be used: {said}.") from error

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.invalidate()  # this ends the open transaction and releases the lock
        self._engine.dispose()

    def begin(self, secret: str, redis_servers: int) -> None:
        """Begin: until ``finish``, no process of the cluster can start. The rows of an unfinished load are deleted."""
        with self._work() as cursor:
            cursor.execute(f"SET SESSION sql_mode = 'STRICT_ALL_TABLES', wait_timeout = {_SILENT_S}")
            cursor.execute("SELECT GET_LOCK(LEFT(CONCAT('hubbub.move.', DATABASE()), 64), %s)", (_LOCK_S,))
            if cursor.fetchone() != (1,):
                raise LoadFailed("Another `hubbub move` into this database is running.")
            cursor.execute("SELECT 1 FROM processes WHERE seen_at >= UNIX_TIMESTAMP() - %s LIMIT 1", (ALIVE_S,))
            if cursor.fetchone() is not None:
                raise LoadFailed(
                    f"The cluster is running on this database, or was in the last {ALIVE_S} s. Stop its API processes "
                    "and writers first."
                )
            cursor.execute("SELECT 1 FROM kept WHERE name = %s", (UNFINISHED_MOVE,))
            if cursor.fetchone() is not None:
                for table in TABLES.values():
                    cursor.execute(f"TRUNCATE TABLE {table}")
                cursor.execute("UPDATE kept SET value = %s WHERE name = %s", (secret, SESSION_KEY))
            elif self._used(cursor, secret):
                raise LoadFailed(
                    "The database is not empty: `hubbub api` was started on it, or data was moved into it before. Stop "
                    "all processes of the cluster and give it a new one (DROP DATABASE and CREATE DATABASE, or another "
                    "name in mysql_url)."
                )
            # A Redis that was used with another database before may hold chats of the same tokens: with a generation
            # that no other database has, nothing of them is read.
            for slot in range(redis_servers):
                note_generation(cursor, slot, secrets.randbelow(2**48) + 2, "")

    @staticmethod
    def _used(cursor: Any, secret: str) -> bool:
        """Whether the database is in use. If not, this load is noted in it.

        A starting API process asks for the session secret before it serves requests. If it was first, this load finds
        that secret; if this load was first, the API process finds the note. See Processes.kept.
        """
        for table in TABLES.values():
            cursor.execute(f"SELECT 1 FROM {table} LIMIT 1")
            if cursor.fetchone() is not None:
                return True
        notes = [(SESSION_KEY, secret), (UNFINISHED_MOVE, "")]
        try:
            cursor.executemany("INSERT INTO kept (name, value) VALUES (%s,%s)", notes)
        except pymysql.err.IntegrityError:
            return True
        return False

    def add(self, kind: type[Row], rows: Sequence[Row]) -> None:
        """Add all of these rows of one kind, or none. The driver splits them into statements of a megabyte."""
        columns = ", ".join(f"`{field}`" for field in kind._fields)
        with self._work() as cursor:
            cursor.executemany(
                f"INSERT INTO {TABLES[kind]} ({columns}) VALUES ({','.join(['%s'] * len(kind._fields))})", rows
            )

    def count(self, kind: type[Row]) -> int:
        """The number of rows of the kind in the database."""
        with self._work() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {TABLES[kind]}")
            return int(cursor.fetchone()[0])

    def finish(self) -> None:
        """Finish the load: the cluster may be started now."""
        with self._work() as cursor:
            cursor.execute("DELETE FROM kept WHERE name = %s", (UNFINISHED_MOVE,))

    @contextmanager
    def _work(self) -> Iterator[Any]:
        """A cursor, in a transaction."""
        try:
            cursor = self._connection.cursor()
            yield cursor
            cursor.close()
            self._connection.commit()
        except pymysql.err.Error as error:
            fault = meaning(error)
            if isinstance(fault, AtFault):
                raise LoadFailed(f"The database can't hold a row as it is: {fault}.") from error
            raise LoadFailed(f"{fault} Fix that, and run the same command again: it starts over.") from error
