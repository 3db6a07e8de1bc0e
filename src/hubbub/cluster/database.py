"""Connections to MySQL and its replicas, and the meaning of its errors. This module implements rule 9.

The driver is synchronous: reads and changes each run on their own threads, with connections from a bounded pool, and
none waits longer than ``_READ_S`` or ``_CHANGE_S`` once it has its turn, however long the server takes. A user has a
part of the threads of reads, so another's read never waits for all that one user has asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pymysql
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hubbub.chat.caller import asking
from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.user_turns import SomeOfEach
from hubbub.cluster.engine import engine_of
from hubbub.cluster.protocol import Position
from hubbub.cluster.threads import Threads

log = logging.getLogger("hubbub.store")

T = TypeVar("T")

_READ_S = 3.0
_CHANGE_S = 9.0  # longer than the database waits for a lock: that is no sign that it does not answer
_OF_USER = 0.75  # part of the threads that the reads of one user may occupy
_REPLICA_RESTS_S = 5.0

# Errors by their number. A command that meets any other error is retried.
_COMMAND = frozenset((1048, 1062, 1153, 1264, 1300, 1366, 1406, 1411, 1451, 1452, 3140))
_STOP = frozenset((1044, 1045, 1054, 1064, 1142, 1143, 1146, 1227, 1364))

_DEADLOCK = 1213


class AtFault(Exception):
    """A command can never be stored: a duplicate, or data that no column accepts. Nothing was changed."""


class Deadlocked(Unavailable):
    """Two transactions waited for each other, and this one was rolled back. It can be retried at once."""


class Broken(Unavailable):
    """The schema or the privileges are wrong: a retry is useless until an operator has fixed them."""


class _Replica:
    """A read-only replica. After a failure it is not used for a while."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._until = 0.0

    @property
    def able(self) -> bool:
        return time.monotonic() >= self._until

    def rest(self, why: str) -> None:
        log.warning("A replica is not used for %.0f s: %s", _REPLICA_RESTS_S, why)
        self._until = time.monotonic() + _REPLICA_RESTS_S


class Database:
    """A primary, and any number of replicas for reads that name the position that a replica must have reached.
    ``engine`` is for the primary, if it is not to be the usual one."""

    def __init__(
        self, url: str, replicas: Sequence[str] = (), *, pool_size: int = 8, engine: Engine | None = None
    ) -> None:
        self.engine = engine or engine_of(url, pool_size)
        self._replicas = [_Replica(engine_of(replica, pool_size)) for replica in replicas]
        self._reads = Threads(pool_size, "mysql", answer_s=_READ_S)
        self._changes = Threads(max(1, pool_size // 2), "mysql-change", answer_s=_CHANGE_S)
        self._shares = SomeOfEach(max(1, int(pool_size * _OF_USER)))
        self._turn = 0

    def close(self) -> None:
        self._reads.close()
        self._changes.close()
        for replica in self._replicas:
            replica.engine.dispose()
        self.engine.dispose()

    @property
    def connections(self) -> int:
        """The number of connections in use, of the primary's pool."""
        return int(self.engine.pool.checkedout())  # type: ignore[attr-defined]

    def run(self, work: Callable[[Any], T], *, commit: bool = True, engine: Engine | None = None) -> T:
        """Run ``work`` with a cursor, in a transaction. Blocks.

        Raises:
            AtFault, Deadlocked: nothing was changed.
            Broken, Unavailable: nothing was changed, unless the answer to the COMMIT itself was lost.
        """
        try:
            connection = (engine or self.engine).raw_connection()
        except (DBAPIError, PoolTimeout, pymysql.err.Error) as error:
            raise Unavailable("The database can't be reached.", retry_after=2) from error
        try:
            cursor = connection.cursor()
            result = work(cursor)
            cursor.close()
            if commit:
                connection.commit()
            else:
                connection.rollback()
        except pymysql.err.Error as error:
            connection.invalidate(error)
            raise meaning(error) from error
        except BaseException:
            connection.invalidate()
            raise
        else:
            connection.close()
        return result

    # Reading ---------------------------------------------------------------------------------------------------------

    async def rows(self, sql: str, parameters: Sequence[Any], at: Position | None = None) -> list[Any]:
        """Read rows from a replica that has reached ``at``, or from the primary.

        Raises:
            Unavailable: the primary can't be reached, too many reads wait, or it did not answer in time.
            RateLimited: too many reads of the user wait.
        """
        user = asking.get()
        if not user:
            return await self.soon(lambda: self._read(sql, parameters, at))
        most = self._reads.most_waiting
        if self._shares.of(user) >= most:
            raise RateLimited(
                f"{most} of your reads wait for the database. Send fewer requests at once.", limit=most, retry_after=1
            )
        async with self._shares.turn(user):
            return await self.soon(lambda: self._read(sql, parameters, at))

    async def row(self, sql: str, parameters: Sequence[Any], at: Position | None = None) -> Any:
        rows = await self.rows(sql, parameters, at)
        return rows[0] if rows else None

    def soon(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run a read on a thread. Raises Unavailable, also when it takes too long; it may then still be running."""
        return self._reads.soon(work)

    def change(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Like ``soon``, for a change: one that takes too long may still be made."""
        return self._changes.soon(work)

    def _read(self, sql: str, parameters: Sequence[Any], at: Position | None) -> list[Any]:
        def read(cursor: Any) -> list[Any]:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

        def read_copy(cursor: Any) -> list[Any] | None:
            # The position is read first, so that the rows are at least as new as it is.
            cursor.execute("SELECT position FROM shards WHERE shard = %s", (at.shard if at else 0,))
            found = cursor.fetchone()
            return read(cursor) if at and found and found[0] >= at.transactions else None

        replica = self._next_replica() if at is not None else None
        if replica is not None:
            try:
                rows = self.run(read_copy, commit=False, engine=replica.engine)
            except Unavailable as error:
                replica.rest(error.sentence)
            else:
                if rows is not None:
                    return rows
        try:
            return self.run(read, commit=False)
        except Unavailable:
            # The server may have closed an idle connection: a retry shows whether the fault is more than that.
            return self.run(read, commit=False)

    def _next_replica(self) -> _Replica | None:
        self._turn += 1
        able = [replica for replica in self._replicas if replica.able]
        return able[self._turn % len(able)] if able else None


def meaning(error: pymysql.err.Error) -> Exception:
    """The exception for an error of the driver. It says whether to set a command aside, to stop, or to retry."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    said = error.args[-1] if error.args else type(error).__name__
    if number in _STOP or isinstance(error, pymysql.err.ProgrammingError | pymysql.err.NotSupportedError):
        return Broken(f"The database refuses, and a retry will not help: {said}.", retry_after=10)
    if number in _COMMAND or isinstance(error, pymysql.err.IntegrityError | pymysql.err.DataError):
        return AtFault(f"{type(error).__name__} {number}: {said}")
    if number == _DEADLOCK:
        return Deadlocked(f"The database refused: {said}.", retry_after=1)
    return Unavailable(f"The database refused: {said}.", retry_after=2)


def marks(values: Sequence[Any], each: str = "%s") -> str:
    """A placeholder for each of the values, separated by commas."""
    return ",".join([each] * len(values))
