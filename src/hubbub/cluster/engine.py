"""Creates connections to MySQL."""

from __future__ import annotations

import ssl
from typing import Any, ClassVar

from pymysql.connections import Connection
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError

SILENT_S = 28  # the server ends a session that is idle for longer, with its transaction and its locks
_RECYCLE_S = 20  # an older connection is not used again: the server might end it
_LOST = (2006, 2013)  # errors by their number


class _Connection(Connection):
    """A connection that creates its TLS context once for each set of TLS options. Reading the system's certificates
    takes milliseconds and half a megabyte. The driver does that for each attempt, which added up to hundreds of
    megabytes while the server was down.
    """

    _made: ClassVar[dict[str, ssl.SSLContext]] = {}

    def _create_ssl_ctx(self, sslp: dict[str, Any]) -> ssl.SSLContext:
        kind = repr(sorted(sslp.items()))
        if kind not in self._made:
            self._made[kind] = super()._create_ssl_ctx(sslp)  # type: ignore[misc]
        return self._made[kind]


def engine_of(url: str, pool_size: int = 1, *, answer_s: int = 10, recycle_s: int = _RECYCLE_S) -> Engine:
    """An engine for the database at ``url``; it connects when needed. ``answer_s`` is how long an answer may take, and
    ``recycle_s`` how old a connection may get; -1 for any age."""
    parsed = make_url(url).set(drivername="mysql+pymysql")
    engine = create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_recycle=recycle_s,
        pool_reset_on_return=None,  # each user of a connection ends its transaction, or drops it
        isolation_level="READ COMMITTED",
        connect_args={
            "connect_timeout": 3,
            "read_timeout": answer_s,
            "write_timeout": 10,
            "charset": "utf8mb4",
            "init_command": f"SET SESSION wait_timeout = {SILENT_S}, innodb_lock_wait_timeout = 8",
        },
    )
    event.listen(engine, "do_connect", lambda _dialect, _record, args, named: _Connection(*args, **named))
    _keep_none_older_than_a_lost_one(engine)
    return engine


def _keep_none_older_than_a_lost_one(engine: Engine) -> None:
    """If a connection is lost, the server may have been restarted, and those that were made before are lost too: each
    is replaced when it is taken next. The pool stays, and with it the bound of the connections.
    """
    losses = 0

    def made(connection: Any, record: Any) -> None:
        record.info.update(losses=losses, new=True)

    def taken(connection: Any, record: Any, taker: Any) -> None:
        if not record.info.pop("new", False) and record.info["losses"] < losses:
            raise DisconnectionError  # the pool makes another in its place

    def dropped(connection: Any, record: Any, error: BaseException | None) -> None:
        nonlocal losses
        # A query that took too long says nothing about others.
        late = error is not None and isinstance(error.__context__, TimeoutError)
        if error is not None and error.args and error.args[0] in _LOST and not late:
            losses = max(losses, record.info["losses"] + 1)

    event.listen(engine, "connect", made)
    event.listen(engine, "checkout", taken)
    event.listen(engine, "invalidate", dropped)
