"""The store of the cluster mode: MySQL 8 or MariaDB 10.11+, and anything that speaks their protocol and SQL.

Everything of an application is keyed by its token first, and no statement on messages, chats or keys reads two
applications' rows by anything but their full keys, so the tables can be split by token. The driver is synchronous:
writes run on the writer's threads, reads on a pool of this store's own, each with a connection from a bounded pool.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeAlias, TypeVar

import msgspec
import pymysql
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    AddUser,
    Applied,
    Command,
    DeleteMessage,
    Delivery,
    EditMessage,
    EndSession,
    Failed,
    OpenChat,
    Opened,
    Outcome,
    Position,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameApplication,
    RenameChat,
)
from hubbub.chat.errors import Forbidden, Invalid, KeyReused, NotFound, Superseded, Unavailable
from hubbub.chat.model import Application, Chat, ChatKey, Member, Message, Role, User
from hubbub.chat.ports import Document
from hubbub.stores.migrate import migrate_mysql

log = logging.getLogger("hubbub.store")

T = TypeVar("T")
_Key: TypeAlias = tuple[str, int, int]  # of a message: token, chat, number

_DOWN = (pymysql.err.OperationalError, pymysql.err.InterfaceError, pymysql.err.InternalError)
_ROWS_PER_INSERT = 500
_CHATS_COUNTED_AT_ONCE = 20
_NEWEST = 101
_REPLICA_RESTS_S = 5
_ALIVE_S = 15  # a process that was not seen for so long is gone

_MESSAGE = (
    "SELECT number, sender_id, sender_name, body, created_at, edited_at FROM messages WHERE token = %s AND chat = %s"
)
_CHAT = """
    SELECT c.number, c.title,
           c.counted + (SELECT COUNT(*) FROM messages m
                        WHERE m.token = c.token AND m.chat = c.number AND m.number > c.counted_to),
           GREATEST(c.last_number, COALESCE((SELECT MAX(m.number) FROM messages m
                                             WHERE m.token = c.token AND m.chat = c.number), 0))
    FROM chats c WHERE c.token = %s
"""
_USER = "SELECT id, ref, email, name, created_at, password_hash FROM users"
_CHANGE = "SELECT token, chat, number, body, COALESCE(edited_at, created_at) FROM messages"
_CHANGES = 200
_PLACES = 1000
_AT_ONCE = 5000
_ROLE = "SELECT role FROM members WHERE token = %s AND user_id = %s"


class _Chat:
    """A chat's row as the transaction under way knows it."""

    __slots__ = ("counted_late", "counted_to", "live_epoch")

    def __init__(self, counted_to: int, live_epoch: int) -> None:
        self.counted_to = counted_to
        self.live_epoch = live_epoch
        self.counted_late = 0


class _Batch:
    """One transaction: its cursor, the chats it touches, and the rows that wait for one INSERT of many."""

    def __init__(self, cursor: Any) -> None:
        self.cursor = cursor
        self.chats: dict[ChatKey, _Chat] = {}
        self.posted: dict[tuple[ChatKey, int, str], tuple[int, bytes]] = {}
        self.rows: list[PostMessage] = []


class _Replica:
    """A read-only copy. One that failed is left alone for a while."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._until = 0.0

    @property
    def able(self) -> bool:
        return time.monotonic() >= self._until

    def rest(self, why: str) -> None:
        log.warning("A replica is not asked for %d s: %s", _REPLICA_RESTS_S, why)
        self._until = time.monotonic() + _REPLICA_RESTS_S


class MySqlStore:
    """See chat.ports.Store."""

    def __init__(
        self, url: str, replicas: Sequence[str] = (), *, pool_size: int = 8, note_changes: bool = False
    ) -> None:
        """Connect and bring the schema up to date. ``replicas`` are the URLs of read-only copies. With
        ``note_changes``, what is changed is noted for a search index.

        Raises:
            SchemaTooNew: a newer version wrote it.
            Unavailable: it can't be reached.
        """
        self._engine = engine_of(url, pool_size)
        try:
            migrate_mysql(self._engine)
        except DBAPIError as error:
            self._engine.dispose()
            raise Unavailable(f"The database can't be used: {error.orig}.", retry_after=5) from error
        self._threads = ThreadPoolExecutor(max_workers=pool_size, thread_name_prefix="mysql")
        self._uncounted: set[ChatKey] = set()
        self._replicas = [_Replica(engine_of(replica, pool_size)) for replica in replicas]
        self._turn = 0
        self._note_changes = note_changes

    def close(self) -> None:
        self._threads.shutdown()
        for replica in self._replicas:
            replica.engine.dispose()
        self._engine.dispose()

    # Connections -----------------------------------------------------------------------------------------------------

    def _with_cursor(self, work: Callable[[Any], T], *, commit: bool, engine: Engine | None = None) -> T:
        """Raises Unavailable; nothing was changed unless the answer to the COMMIT itself was lost."""
        try:
            connection = (engine or self._engine).raw_connection()
        except (DBAPIError, PoolTimeout, *_DOWN) as error:
            raise Unavailable("The database can't be reached.", retry_after=2) from error
        try:
            cursor = connection.cursor()
            result = work(cursor)
            cursor.close()
            if commit:
                connection.commit()
            else:
                connection.rollback()
        except _DOWN as error:
            connection.invalidate(error)
            raise Unavailable(
                f"The database refused: {error.args[-1] if error.args else error}.", retry_after=2
            ) from error
        except BaseException:
            connection.invalidate()
            raise
        else:
            connection.close()
        return result

    async def _read(self, sql: str, parameters: Sequence[Any], at: Position | None = None) -> list[Any]:
        """Rows from a replica that has come as far as ``at``, or from the primary."""

        def read(cursor: Any) -> list[Any]:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

        def read_copy(cursor: Any) -> list[Any] | None:
            # In this order: whatever else arrives in between, the rows are at least as new as the position.
            cursor.execute("SELECT position FROM shards WHERE shard = %s", (at.shard if at else 0,))
            found = cursor.fetchone()
            return read(cursor) if at and found and found[0] >= at.transactions else None

        def run() -> list[Any]:
            replica = self._next_replica() if at is not None else None
            if replica is not None:
                try:
                    rows = self._with_cursor(read_copy, commit=False, engine=replica.engine)
                except Unavailable as error:
                    replica.rest(error.sentence)
                else:
                    if rows is not None:
                        return rows
            try:
                return self._with_cursor(read, commit=False)
            except Unavailable:
                # An idle connection may have been closed from the other side: a fresh one says whether it is more.
                return self._with_cursor(read, commit=False)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _next_replica(self) -> _Replica | None:
        self._turn += 1
        able = [replica for replica in self._replicas if replica.able]
        return able[self._turn % len(able)] if able else None

    async def _row(self, sql: str, parameters: Sequence[Any], at: Position | None = None) -> Any:
        rows = await self._read(sql, parameters, at)
        return rows[0] if rows else None

    # Writing ---------------------------------------------------------------------------------------------------------

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        return self._with_cursor(lambda cursor: self._apply(_Batch(cursor), batch), commit=True)

    def apply_deliveries(self, shard: int, deliveries: Sequence[Delivery], *, one_by_one: bool = False) -> Applied:
        """Apply a shard's deliveries in order in one transaction, each once however often it comes.

        With ``one_by_one``, the outcome of a command that can't be applied is Failed, instead of an exception for all.

        Raises:
            Unavailable: nothing was applied, or all of it was and the answer got lost: both mend by trying again.
        """
        apply = self._apply_one_by_one if one_by_one else self._apply
        return self._with_cursor(lambda cursor: self._apply_deliveries(cursor, shard, deliveries, apply), commit=True)

    def _apply_one_by_one(self, batch: _Batch, commands: Sequence[Command]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for command in commands:
            batch.cursor.execute("SAVEPOINT command")
            try:
                outcomes += self._apply(_Batch(batch.cursor), [command])
            except _DOWN:
                raise
            except Exception as error:  # noqa: BLE001 - becomes the command's outcome
                batch.cursor.execute("ROLLBACK TO SAVEPOINT command")
                outcomes.append(Failed(f"{type(error).__name__}: {error}"))
        return outcomes

    def _apply_deliveries(
        self,
        cursor: Any,
        shard: int,
        deliveries: Sequence[Delivery],
        apply: Callable[[_Batch, Sequence[Command]], list[Outcome]],
    ) -> Applied:
        # Locks the shard: another writer that believes it has it waits here, and then finds its deliveries applied.
        cursor.execute(
            "INSERT INTO shards (shard, position) VALUES (%s, 1) ON DUPLICATE KEY UPDATE position = position + 1",
            (shard,),
        )
        cursor.execute("SELECT position FROM shards WHERE shard = %s", (shard,))
        position = Position(shard, cursor.fetchone()[0])
        publishers = sorted({delivery.publisher for delivery in deliveries})
        cursor.execute(
            f"SELECT publisher, sequence FROM publishers WHERE shard = %s AND publisher IN ({_marks(publishers)})",
            (shard, *publishers),
        )
        applied: dict[str, int] = dict(cursor.fetchall())
        fresh = []
        for delivery in deliveries:
            fresh.append(delivery.sequence > applied.get(delivery.publisher, 0))
            if fresh[-1]:
                applied[delivery.publisher] = delivery.sequence
        commands = [command for new, d in zip(fresh, deliveries, strict=True) if new for command in d.commands]
        outcomes = iter(apply(_Batch(cursor), commands))
        changed = {(*command.chat, command.number) for command in commands if not isinstance(command, OpenChat)}
        if changed and self._note_changes:
            cursor.execute(
                "INSERT INTO changes (shard, position, noted_at, messages) VALUES (%s, %s, %s, %s)",
                (*position, time.time_ns() // 1_000_000, msgspec.msgpack.encode(sorted(changed))),
            )
        rows = [(shard, publisher, applied[publisher]) for publisher in publishers]
        cursor.execute(
            "INSERT INTO publishers (shard, publisher, sequence, applied_at) VALUES "
            + ",".join(["(%s, %s, %s, UNIX_TIMESTAMP())"] * len(rows))
            + " ON DUPLICATE KEY UPDATE sequence = VALUES(sequence), applied_at = VALUES(applied_at)",
            [value for row in rows for value in row],
        )
        return Applied(
            position,
            [
                [next(outcomes) for _ in delivery.commands] if new else None
                for new, delivery in zip(fresh, deliveries, strict=True)
            ],
        )

    def _apply(self, batch: _Batch, commands: Sequence[Command]) -> list[Outcome]:
        self._look_up(batch, [command for command in commands if type(command) is PostMessage])
        outcomes: list[Outcome] = []
        for command in commands:
            if type(command) is PostMessage:
                outcomes.append(self._post(batch, command))
            else:
                self._insert(batch)
                outcomes.append(self._handlers[type(command)](self, batch.cursor, command))
                if isinstance(command, DeleteMessage | OpenChat):
                    batch.chats.pop(command.chat, None)  # read again for the next post there
        self._insert(batch)
        return outcomes

    def _look_up(self, batch: _Batch, posts: Sequence[PostMessage]) -> None:
        """Read, and lock in the order of their key, the chats and Idempotency-Keys that the posts need."""
        self._look_up_chats(batch, sorted({post.chat for post in posts}))
        keyed = sorted({(post.chat, post.sender_id, post.key) for post in posts if post.key is not None})
        if keyed:
            batch.cursor.execute(
                "SELECT token, chat, sender_id, `key`, number, body_hash FROM idempotency_keys"
                f" WHERE (token, chat, sender_id, `key`) IN ({','.join(['(%s,%s,%s,%s)'] * len(keyed))})",
                [value for chat, sender, key in keyed for value in (*chat, sender, key)],
            )
            for token, chat, sender, key, number, body_hash in batch.cursor.fetchall():
                batch.posted[ChatKey(token, chat), sender, key] = number, body_hash

    @staticmethod
    def _look_up_chats(batch: _Batch, keys: Sequence[ChatKey]) -> None:
        if not keys:
            return
        batch.cursor.execute(
            "SELECT token, number, counted_to, live_epoch FROM chats"
            f" WHERE (token, number) IN ({','.join(['(%s,%s)'] * len(keys))}) ORDER BY token, number FOR UPDATE",
            [value for key in keys for value in key],
        )
        for token, number, counted_to, live_epoch in batch.cursor.fetchall():
            batch.chats[ChatKey(token, number)] = _Chat(counted_to, live_epoch)

    def _post(self, batch: _Batch, command: PostMessage) -> Outcome:
        chat = batch.chats.get(command.chat)
        if chat is None:
            self._look_up_chats(batch, [command.chat])  # another command of the batch may have changed it since
            chat = batch.chats.get(command.chat)
            if chat is None:
                return NotFound("There is no such chat.")
        if command.key is not None:
            entry = command.chat, command.sender_id, command.key
            known = batch.posted.get(entry)
            if known is not None:
                return known[0] if known[1] == command.body_hash else KeyReused("Another body came with this key.")
        if command.epoch and command.epoch < chat.live_epoch:
            return Superseded("The chat's numbering was opened anew before this message was stored.")
        if command.key is not None:
            batch.posted[entry] = command.number, command.body_hash or b""
        batch.rows.append(command)
        if len(batch.rows) == _ROWS_PER_INSERT:
            self._insert(batch)
        return command.number

    def _insert(self, batch: _Batch) -> None:
        rows, batch.rows = batch.rows, []
        if not rows:
            return
        batch.cursor.execute(
            "INSERT INTO messages (token, chat, number, sender_id, sender_name, body, created_at) VALUES "
            + ",".join(["(%s,%s,%s,%s,%s,%s,%s)"] * len(rows)),
            [
                value
                for row in rows
                for value in (*row.chat, row.number, row.sender_id, row.sender_name, row.body, row.created_at)
            ],
        )
        keyed = [row for row in rows if row.key is not None]
        if keyed:
            batch.cursor.execute(
                "INSERT INTO idempotency_keys (token, chat, sender_id, `key`, number, body_hash) VALUES "
                + ",".join(["(%s,%s,%s,%s,%s,%s)"] * len(keyed)),
                [v for row in keyed for v in (*row.chat, row.sender_id, row.key, row.number, row.body_hash)],
            )
        late: dict[ChatKey, int] = {}
        for row in rows:
            self._uncounted.add(row.chat)
            if row.number <= batch.chats[row.chat].counted_to:
                late[row.chat] = late.get(row.chat, 0) + 1
        for key, count in late.items():  # overtaken by a higher number, which has been counted already
            batch.cursor.execute(
                "UPDATE chats SET counted = counted + %s WHERE token = %s AND number = %s", (count, *key)
            )

    def _edit(self, cursor: Any, command: EditMessage) -> Outcome:
        cursor.execute(
            "UPDATE messages SET body = %s, edited_at = %s"
            " WHERE token = %s AND chat = %s AND number = %s AND sender_id = %s",
            (command.body, command.edited_at, *command.chat, command.number, command.editor_id),
        )
        return None if cursor.rowcount else NotFound("There is no such message in this chat.")

    def _delete(self, cursor: Any, command: DeleteMessage) -> Outcome:
        cursor.execute(
            "DELETE FROM messages WHERE token = %s AND chat = %s AND number = %s AND (%s OR sender_id = %s)",
            (*command.chat, command.number, command.any_sender, command.deleter_id),
        )
        if not cursor.rowcount:
            return NotFound("There is no such message in this chat.")
        cursor.execute(
            "UPDATE chats SET last_number = GREATEST(last_number, %s), counted = counted - (%s <= counted_to)"
            " WHERE token = %s AND number = %s",
            (command.number, command.number, *command.chat),
        )
        return None

    def _open_chat(self, cursor: Any, command: OpenChat) -> Outcome:
        cursor.execute("UPDATE chats SET epoch = epoch + 1 WHERE token = %s AND number = %s", command.chat)
        if not cursor.rowcount:
            return NotFound("There is no such chat.")
        cursor.execute("SELECT epoch, last_number FROM chats WHERE token = %s AND number = %s", command.chat)
        epoch, last_number = cursor.fetchone()
        cursor.execute(f"{_MESSAGE} ORDER BY number DESC LIMIT {_NEWEST}", command.chat)
        newest = [Message(*row) for row in cursor.fetchall()]
        return Opened(epoch, max(last_number, newest[0].number if newest else 0), newest)

    def set_live(self, chat: ChatKey, epoch: int) -> None:
        """From now on messages numbered in this epoch are being acknowledged, and none of an earlier one will be."""
        self._with_cursor(
            lambda cursor: cursor.execute(
                "UPDATE chats SET live_epoch = GREATEST(live_epoch, %s) WHERE token = %s AND number = %s",
                (epoch, *chat),
            ),
            commit=True,
        )

    def reserve(self, post: PostMessage) -> None:
        """Keep the post's number taken although it can't be stored now."""
        self._with_cursor(
            lambda cursor: cursor.execute(
                "UPDATE chats SET last_number = GREATEST(last_number, %s) WHERE token = %s AND number = %s",
                (post.number, *post.chat),
            ),
            commit=True,
        )

    def _add_user(self, cursor: Any, command: AddUser) -> Outcome:
        cursor.execute(
            "INSERT INTO users (ref, email, name, password_hash, created_at) VALUES (%s,%s,%s,%s,%s)"
            " ON DUPLICATE KEY UPDATE id = id",
            (command.ref, command.email, command.name, command.password_hash, command.created_at),
        )
        cursor.execute(f"{_USER} WHERE ref = %s", (command.ref,))
        row = cursor.fetchone()
        return User(*row[:5]) if row else Invalid(["email has already been taken"])

    def _end_session(self, cursor: Any, command: EndSession) -> Outcome:
        cursor.execute(
            "INSERT INTO ended_sessions (session, expires_at) VALUES (%s,%s)"
            " ON DUPLICATE KEY UPDATE expires_at = VALUES(expires_at)",
            (command.session, command.expires_at),
        )
        return None

    def _add_application(self, cursor: Any, command: AddApplication) -> Outcome:
        cursor.execute(
            "INSERT INTO applications (token, name, created_at) VALUES (%s,%s,%s)",
            (command.token, command.name, command.created_at),
        )
        cursor.execute(
            "INSERT INTO members (token, user_id, role, app_created_at) VALUES (%s,%s,'owner',%s)",
            (command.token, command.owner_id, command.created_at),
        )
        return None

    def _rename_application(self, cursor: Any, command: RenameApplication) -> Outcome:
        cursor.execute("UPDATE applications SET name = %s WHERE token = %s", (command.name, command.token))
        return None

    def _put_member(self, cursor: Any, command: PutMember) -> Outcome:
        cursor.execute(f"{_ROLE} FOR UPDATE", (command.token, command.user_id))
        found = cursor.fetchone()
        if found is not None and found[0] == Role.OWNER:
            return Forbidden("The owner's role can't be changed.")
        cursor.execute(
            "INSERT INTO members (token, user_id, role, app_created_at)"
            " SELECT token, %s, %s, created_at FROM applications WHERE token = %s"
            " ON DUPLICATE KEY UPDATE role = VALUES(role)",
            (command.user_id, command.role.value, command.token),
        )
        return None

    def _remove_member(self, cursor: Any, command: RemoveMember) -> Outcome:
        cursor.execute(f"{_ROLE} FOR UPDATE", (command.token, command.user_id))
        found = cursor.fetchone()
        if found is None:
            return NotFound("There is no such member in this application.")
        if found[0] == Role.OWNER:
            return Forbidden("The owner can't be removed.")
        cursor.execute("DELETE FROM members WHERE token = %s AND user_id = %s", (command.token, command.user_id))
        return None

    def _add_chat(self, cursor: Any, command: AddChat) -> Outcome:
        # Chats are never deleted, so the application's count of them is also the number of the last.
        cursor.execute("UPDATE applications SET chats_count = chats_count + 1 WHERE token = %s", (command.token,))
        if not cursor.rowcount:
            return NotFound("There is no such application.")
        cursor.execute("SELECT chats_count FROM applications WHERE token = %s", (command.token,))
        (number,) = cursor.fetchone()
        cursor.execute(
            "INSERT INTO chats (token, number, title, created_at) VALUES (%s,%s,%s,%s)",
            (command.token, number, command.title, command.created_at),
        )
        return int(number)

    def _rename_chat(self, cursor: Any, command: RenameChat) -> Outcome:
        cursor.execute("UPDATE chats SET title = %s WHERE token = %s AND number = %s", (command.title, *command.chat))
        return None

    _handlers: ClassVar[dict[type[Any], Callable[[MySqlStore, Any, Any], Outcome]]] = {
        EditMessage: _edit,
        DeleteMessage: _delete,
        OpenChat: _open_chat,
        AddUser: _add_user,
        EndSession: _end_session,
        AddApplication: _add_application,
        RenameApplication: _rename_application,
        PutMember: _put_member,
        RemoveMember: _remove_member,
        AddChat: _add_chat,
        RenameChat: _rename_chat,
    }

    @property
    def connections(self) -> int:
        """In use now, of the pool of the primary."""
        return int(self._engine.pool.checkedout())  # type: ignore[attr-defined]

    async def index_lag(self) -> float:
        """For how many seconds the oldest noted change has been waiting."""
        row = await self._row("SELECT MIN(noted_at) FROM changes", ())
        return max(time.time() - row[0] / 1000, 0.0) if row[0] is not None else 0.0

    def index_changes(self, take: Callable[[list[Document]], None]) -> int:
        """Give ``take`` the messages of some noted changes, as they are now, and forget the changes when it returns.
        Several processes may do so at once, each with others. How many changes there were. Raises Unavailable, and
        what ``take`` raises; then nothing is forgotten.
        """

        def work(cursor: Any) -> int:
            # Else the gaps between the rows would be locked too, and the writers could note nothing new.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                "SELECT shard, position, messages FROM changes ORDER BY shard, position LIMIT %s"
                " FOR UPDATE SKIP LOCKED",
                (_CHANGES,),
            )
            rows = cursor.fetchall()
            if not rows:
                return 0
            places = sorted({place for row in rows for place in msgspec.msgpack.decode(row[2], type=list[_Key])})
            found: dict[Any, Any] = {}
            for at in range(0, len(places), _PLACES):
                some = places[at : at + _PLACES]
                cursor.execute(
                    f"{_CHANGE} WHERE (token, chat, number) IN ({','.join(['(%s,%s,%s)'] * len(some))})",
                    [value for place in some for value in place],
                )
                found |= {row[:3]: row[3:] for row in cursor.fetchall()}
            now = int(time.time() * 1000)
            take([_document(place, *found.get(place, (None, now))) for place in places])
            cursor.execute(
                f"DELETE FROM changes WHERE (shard, position) IN ({','.join(['(%s,%s)'] * len(rows))})",
                [value for row in rows for value in row[:2]],
            )
            return len(rows)

        return self._with_cursor(work, commit=True)

    def all_messages(self, after: _Key) -> list[Document]:
        """Some thousand messages in the order of their keys, from behind ``after``; none when there are no more."""
        token, chat, number = after

        def work(cursor: Any) -> list[Document]:
            cursor.execute(
                f"{_CHANGE} WHERE token >= %s AND (token > %s OR chat > %s OR (chat = %s AND number > %s))"
                " ORDER BY token, chat, number LIMIT %s",
                (token, token, chat, chat, number, _AT_ONCE),
            )
            return [_document(row[:3], *row[3:]) for row in cursor.fetchall()]

        return self._with_cursor(work, commit=False)

    def count_messages(self) -> None:
        waiting = sorted(self._uncounted)
        for start in range(0, len(waiting), _CHATS_COUNTED_AT_ONCE):
            chats = waiting[start : start + _CHATS_COUNTED_AT_ONCE]
            # Before the transaction: what is posted while it runs must be counted the next time.
            self._uncounted.difference_update(chats)
            try:
                self._with_cursor(lambda cursor, chats=chats: self._count(cursor, chats), commit=True)  # type: ignore[misc]
            except Unavailable:
                self._uncounted.update(chats)
                raise

    @staticmethod
    def _count(cursor: Any, chats: Sequence[ChatKey]) -> None:
        # The rows are locked first: a post that comes between must find either the old counted_to or the new one.
        keys = [value for chat in chats for value in chat]
        pairs = ",".join(["(%s,%s)"] * len(chats))
        cursor.execute(
            f"SELECT token, number, counted_to FROM chats WHERE (token, number) IN ({pairs})"
            " ORDER BY token, number FOR UPDATE",
            keys,
        )
        for token, chat, counted_to in cursor.fetchall():
            cursor.execute(
                "SELECT COUNT(*), MAX(number) FROM messages WHERE token = %s AND chat = %s AND number > %s",
                (token, chat, counted_to),
            )
            count, highest = cursor.fetchone()
            if count:
                cursor.execute(
                    "UPDATE chats SET counted = counted + %s, counted_to = %s WHERE token = %s AND number = %s",
                    (count, highest, token, chat),
                )

    def kept(self, name: str, value: str) -> str:
        """What is kept under the name for the whole cluster: the value, if nothing was kept before."""

        def work(cursor: Any) -> str:
            cursor.execute("INSERT IGNORE INTO kept (name, value) VALUES (%s,%s)", (name, value))
            cursor.execute("SELECT value FROM kept WHERE name = %s", (name,))
            return str(cursor.fetchone()[0])

        return self._with_cursor(work, commit=True)

    def keep(self, name: str, value: str) -> None:
        """Change what is kept under the name."""
        self._with_cursor(
            lambda cursor: cursor.execute("UPDATE kept SET value = %s WHERE name = %s", (value, name)), commit=True
        )

    def alive(self, kind: str, name: str | None = None) -> int:
        """Say that the process of this kind and name is alive.

        Returns:
            How many of the kind are.
        """

        def work(cursor: Any) -> int:
            if name is not None:
                cursor.execute(
                    "INSERT INTO processes (kind, name, seen_at) VALUES (%s, %s, UNIX_TIMESTAMP())"
                    " ON DUPLICATE KEY UPDATE seen_at = VALUES(seen_at)",
                    (kind, name),
                )
            cursor.execute("DELETE FROM processes WHERE seen_at < UNIX_TIMESTAMP() - %s", (_ALIVE_S,))
            cursor.execute("SELECT COUNT(*) FROM processes WHERE kind = %s", (kind,))
            return int(cursor.fetchone()[0])

        return self._with_cursor(work, commit=True)

    def reached(self, publisher: str) -> int:
        """How many shards have been applied up to the first delivery of this publisher."""

        def work(cursor: Any) -> int:
            cursor.execute("SELECT COUNT(*) FROM publishers WHERE publisher = %s", (publisher,))
            return int(cursor.fetchone()[0])

        return self._with_cursor(work, commit=False)

    def gone(self, kind: str, name: str) -> None:
        self._with_cursor(
            lambda cursor: cursor.execute("DELETE FROM processes WHERE kind = %s AND name = %s", (kind, name)),
            commit=True,
        )

    def forget(self, now: int) -> None:
        """Drop what nobody can ask for any more by ``now`` (ms): expired sessions, publishers gone for a week."""

        def work(cursor: Any) -> None:
            cursor.execute("DELETE FROM ended_sessions WHERE expires_at < %s", (now,))
            cursor.execute("DELETE FROM publishers WHERE applied_at < %s", (now // 1000 - 7 * 24 * 3600,))

        self._with_cursor(work, commit=True)

    # Reading ---------------------------------------------------------------------------------------------------------

    async def user_by_ref(self, ref: str) -> User | None:
        row = await self._row(f"{_USER} WHERE ref = %s", (ref,))
        return row and User(*row[:5])

    async def user_by_email(self, email: str) -> tuple[User, str] | None:
        row = await self._row(f"{_USER} WHERE email = %s", (email,))
        return row and (User(*row[:5]), row[5])

    async def session_ended(self, session: str) -> bool:
        return await self._row("SELECT 1 FROM ended_sessions WHERE session = %s", (session,)) is not None

    async def application(self, token: str) -> Application | None:
        row = await self._row("SELECT token, name, chats_count FROM applications WHERE token = %s", (token,))
        return row and Application(*row)

    async def applications_of(self, user_id: int, *, offset: int, limit: int) -> list[Application]:
        rows = await self._read(
            "SELECT a.token, a.name, a.chats_count FROM members m JOIN applications a ON a.token = m.token"
            " WHERE m.user_id = %s ORDER BY m.app_created_at DESC, m.position DESC LIMIT %s OFFSET %s",
            (user_id, limit, offset),
        )
        return [Application(*row) for row in rows]

    async def role(self, token: str, user_id: int) -> Role | None:
        row = await self._row(_ROLE, (token, user_id))
        return row and Role(row[0])

    async def members(self, token: str) -> list[Member]:
        rows = await self._read(
            "SELECT u.email, u.name, m.role FROM members m JOIN users u ON u.id = m.user_id"
            " WHERE m.token = %s ORDER BY m.user_id",
            (token,),
        )
        return [Member(email, name, Role(role)) for email, name, role in rows]

    async def chat(self, key: ChatKey) -> Chat | None:
        row = await self._row(f"{_CHAT} AND c.number = %s", key)
        return row and Chat(*row)

    async def chats(self, token: str, *, offset: int, limit: int) -> list[Chat]:
        rows = await self._read(f"{_CHAT} ORDER BY c.number DESC LIMIT %s OFFSET %s", (token, limit, offset))
        return [Chat(*row) for row in rows]

    async def message(self, key: ChatKey, number: int, *, at: Position | None = None) -> Message | None:
        """``at``: a copy that has come this far will do; so for ``messages``."""
        row = await self._row(f"{_MESSAGE} AND number = %s", (*key, number), at)
        return row and Message(*row)

    async def numbered(self, key: ChatKey, numbers: Sequence[int], *, at: Position | None = None) -> list[Message]:
        if not numbers:
            return []
        places = ",".join(["%s"] * len(numbers))
        return [Message(*row) for row in await self._read(f"{_MESSAGE} AND number IN ({places})", (*key, *numbers), at)]

    async def messages(
        self,
        key: ChatKey,
        *,
        limit: int,
        before: int | None = None,
        after: int | None = None,
        offset: int = 0,
        at: Position | None = None,
    ) -> list[Message]:
        if after is not None:
            rows = await self._read(f"{_MESSAGE} AND number > %s ORDER BY number LIMIT %s", (*key, after, limit), at)
            rows.reverse()
        elif before is not None:
            rows = await self._read(
                f"{_MESSAGE} AND number < %s ORDER BY number DESC LIMIT %s OFFSET %s", (*key, before, limit, offset), at
            )
        else:
            rows = await self._read(f"{_MESSAGE} ORDER BY number DESC LIMIT %s OFFSET %s", (*key, limit, offset), at)
        return [Message(*row) for row in rows]

    async def posted(self, key: ChatKey, sender_id: int, idempotency_key: str) -> tuple[int, bytes] | None:
        row = await self._row(
            "SELECT number, body_hash FROM idempotency_keys"
            " WHERE token = %s AND chat = %s AND sender_id = %s AND `key` = %s",
            (*key, sender_id, idempotency_key),
        )
        return row and (int(row[0]), bytes(row[1]))


def _document(place: _Key, body: str | None, written_at: int) -> Document:
    return Document(ChatKey(*place[:2]), place[2], body, written_at)


def _marks(values: Sequence[Any]) -> str:
    return ",".join(["%s"] * len(values))


def engine_of(url: str, pool_size: int = 1) -> Engine:
    """Connections to the database at ``url``, made when they are needed."""
    parsed = make_url(url).set(drivername="mysql+pymysql")
    return create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args={"connect_timeout": 3, "read_timeout": 10, "write_timeout": 10, "charset": "utf8mb4"},
    )
