"""The store of the embedded mode: one SQLite file in WAL mode, synchronous=FULL.

One connection writes, on the thread that calls ``apply``; SQLite would serialise writers anyway, and one connection
can't wait for its own locks. Short reads run on the event loop's own connection, where they cost some 20 µs; reads that
may visit many rows (a deep page by offset, the candidates of a search) go to threads.

Reads of many rows return one JSON array: sqlite3 releases the GIL around every step, and with a busy event loop it
waits each time to get it back. A batch of messages is inserted row by row, as the process that commits has no other
thread. One statement for many rows would cost more: SQLite would first write down the earlier state of each page that
it changes, to undo that statement alone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sqlite3
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar, cast

from hubbub.chat.accounts import account_gone, must_hand_over, no_account, session_over
from hubbub.chat.applications import handed_over, must_own, no_member
from hubbub.chat.commands import (
    DELETE_CHATS,
    AddApplication,
    AddChat,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteMessage,
    DeleteUser,
    EditMessage,
    EndErasure,
    EndSession,
    EndSessions,
    HandOver,
    Outcome,
    PostMessage,
    PutMember,
    RemoveMember,
    RenameApplication,
    RenameChat,
    RenameUser,
    Repeated,
    SetPassword,
)
from hubbub.chat.deep_pages import DEEP
from hubbub.chat.errors import Forbidden, KeyReused, NotFound
from hubbub.chat.limits import ENDED_SESSION_KEPT_MS
from hubbub.chat.model import (
    DELETED_USER,
    Application,
    Chat,
    ChatKey,
    Invite,
    Member,
    Message,
    Purpose,
    Role,
    User,
)
from hubbub.chat.ports import Place, Sent
from hubbub.embedded.accounts import HANDLERS, ROLE, is_gone, refused_by, role_of
from hubbub.embedded.erasing import erase_some
from hubbub.embedded.following import Following, note_changes
from hubbub.embedded.migrate import migrate
from hubbub.embedded.readers import Readers
from hubbub.embedded.soundness import Soundness
from hubbub.embedded.wal import LongReads, Wal

T = TypeVar("T")

log = logging.getLogger("hubbub.store")

_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables
_CHATS_COUNTED_AT_ONCE = 200
_KNOWN_CHATS = 100_000
_AT_ONCE = 5000  # messages that one step of a walk over all messages reads
_UNDER_WAY_MS = 2000  # how long requests of a deleted account may still be in progress; they take milliseconds

_ERASING_S = 0.02  # once a second, while there is deleted data to remove

_LAST = "max(c.last_deleted, coalesce((SELECT max(m.number) FROM messages m WHERE m.chat_id = c.id), 0))"
_LIVE = (
    "FROM chats c JOIN applications a ON a.id = c.application_id"
    " WHERE a.token = ? AND NOT a.deleted AND c.number = ? AND NOT c.deleted"
)
_CHAT_ID = f"SELECT c.id {_LIVE}"
_WRITTEN = f"SELECT c.id, {_LAST} {_LIVE}"
_APPLICATION_ID = "SELECT id FROM applications WHERE token = ? AND NOT deleted"
_COUNT = (
    "UPDATE chats SET (counted, counted_to) ="
    " (SELECT chats.counted + count(*), coalesce(max(m.number), chats.counted_to)"
    "  FROM messages m WHERE m.chat_id = chats.id AND m.number > chats.counted_to)"
    " WHERE id = ?"
)
_Row: TypeAlias = tuple[int, int, int, int, str]  # of a message
_PLACE, _CHAT_OF = itemgetter(0, 1), itemgetter(0)
_INSERT_MESSAGE = "INSERT INTO messages (chat_id, number, sender_id, created_at, body) VALUES (?,?,?,?,?)"
_CHAT = f"""
    SELECT c.number, c.title,
           c.counted + (SELECT count(*) FROM messages m WHERE m.chat_id = c.id AND m.number > c.counted_to),
           {_LAST}
    FROM chats c
"""
_MESSAGE = """
    SELECT m.number, m.sender_id, u.ref, u.name, m.body, m.created_at, m.edited_at
    FROM messages m JOIN users u ON u.id = m.sender_id
"""
_SENT = """
    WITH some AS MATERIALIZED (SELECT chat_id, number, sender_id FROM messages
                               WHERE (chat_id, number) > (?, ?) ORDER BY chat_id, number LIMIT ?)
    SELECT json_array(
        json((SELECT json_array(chat_id, number) FROM some ORDER BY chat_id DESC, number DESC LIMIT 1)),
        json((SELECT json_group_array(json_array(a.token, c.number, some.number, some.sender_id)) FROM some
         JOIN chats c ON c.id = some.chat_id AND NOT c.deleted
         JOIN applications a ON a.id = c.application_id AND NOT a.deleted
         WHERE some.sender_id IN (SELECT value FROM json_each(?)))))
"""
_MANY_NUMBERED = """
    SELECT json_group_array(json_array(m.number, m.sender_id, u.ref, u.name, m.body, m.created_at, m.edited_at))
    FROM json_each(?) named CROSS JOIN messages m ON m.chat_id = ? AND m.number = named.value
    JOIN users u ON u.id = m.sender_id
"""
_SCANNED = f"""
    SELECT json_group_array(number), group_concat(replace(body, char(10), ' '), char(10)), max(chat_id) FROM (
        SELECT m.chat_id, m.number, m.body FROM messages m WHERE m.chat_id = ({_CHAT_ID})
        AND m.number > ? AND m.number < ?
        ORDER BY m.number DESC LIMIT ?)
"""
_USER = "SELECT id, ref, email, name, created_at, era, password_hash FROM users WHERE NOT deleted"
_SESSION = "SELECT era, EXISTS (SELECT 1 FROM ended_sessions WHERE session = ?) FROM users WHERE id = ?"


class _Written:
    """A chat that commands are applied to: its id, and ``last``, which is the highest number that it has ever given, or
    above it.
    """

    __slots__ = ("id", "last")

    def __init__(self, id: int, last: int) -> None:
        self.id = id
        self.last = last

    def number(self, given: int) -> int:
        """The number of a new message: the next one, unless another is given."""
        number = given or self.last + 1
        if number > self.last:
            self.last = number
        return number


class SqliteStore:
    """See chat.ports.Store. A PostMessage with the number 0 gets its number here."""

    def __init__(self, path: Path, found: Callable[[str], None] | None = None) -> None:
        """Open or create the database and bring its schema up to date. ``found``: see Soundness.

        Raises:
            SchemaTooNew: a newer version wrote the schema.
            sqlite3.Error: the file can't be opened, or is no database.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise RuntimeError(f"SQLite {sqlite3.sqlite_version} is too old; Hubbub needs 3.37 or newer.")
        migrate(path)
        self._path = path
        self._writing = self._connect()
        self._reading = self._connect(read_only=True)
        self._reading.execute("SELECT 1 FROM changes LIMIT 1").fetchall()
        self._soundness = Soundness(path, found)
        self.following = Following(self._connect(read_only=True), self._soundness)
        self._readers = Readers(partial(self._connect, read_only=True))
        # The two kinds of long reads have separate threads, so that neither waits for the other. Deep pages take
        # longest, and are read one at a time: between two of them the log can be emptied.
        self._far_reads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="far-read")
        self._deep_pages = ThreadPoolExecutor(max_workers=1, thread_name_prefix="deep-page")
        self._wal = Wal(path, self._connect)
        self._long_reads = LongReads(path)
        # Caches of the chats' ids, which are valid until the chat is deleted. What applies commands has its own, and
        # drops a chat from it in the transaction that deletes. Reads have the other, see ``forget_ids``.
        self._written: dict[ChatKey, _Written] = {}
        self._chat_ids: dict[ChatKey, int] = {}
        # Chats with messages above counted_to, as far as this process knows; the first has waited longest. It only
        # makes count_messages add them to the stored count sooner.
        self._uncounted: dict[int, None] = {}
        self._changed: array[int] = array("q")  # in the current batch: chat_id and number, alternating
        self._indexed_to = 0
        self._forgotten_to = 0

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        # mode=rw: if the file is missing, that is an error; no new database is created.
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        return connection

    @property
    def fault(self) -> str | None:
        """Why the store accepts no more writes, see Soundness; None when it does."""
        return self._soundness.fault

    def unsound(self, fault: str) -> None:
        """Accept no more writes: another process has found this fault."""
        self._soundness.found(fault)

    def close(self) -> None:
        """Close all connections. No call may be in progress."""
        self._far_reads.shutdown()
        self._deep_pages.shutdown()
        self._readers.close()
        self._long_reads.close()
        self._reading.close()
        self.following.close()
        self._writing.close()

    # Writing ---------------------------------------------------------------------------------------------------------

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        if self._soundness.fault is not None:
            raise self._soundness.refusal()
        try:
            outcomes = self._transaction(lambda: self._apply(batch))
        except BaseException:
            self._written.clear()  # it has what was rolled back
            raise
        if not DELETE_CHATS.isdisjoint(map(type, batch)):
            self.forget_ids()
        self._soundness.check()  # after the commit: it must hold for what is acknowledged next
        return outcomes

    def _transaction(self, work: Callable[[], T]) -> T:
        connection = self._writing
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = work()
            connection.execute("COMMIT")
        except sqlite3.IntegrityError:
            connection.rollback()
            raise
        except sqlite3.Error as error:
            self._roll_back()
            raise self._soundness.met(error, "write") from error
        except BaseException:
            connection.rollback()
            raise
        return result

    def _roll_back(self) -> None:
        """Leave no transaction open, even if the disk refuses a rollback: then reconnect."""
        try:
            if self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
        except sqlite3.Error:
            self._writing.close()
            self._writing = self._connect()

    def _apply(self, batch: Sequence[Command]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        rows: list[_Row] = []
        known = self._written
        if len(known) >= _KNOWN_CHATS:  # not within a batch: the numbers of ``rows`` are known here only
            known.clear()
        self._changed = array("q")
        for command in batch:
            if type(command) is PostMessage:
                chat = known.get(command.chat)
                if chat is None or command.key is not None:
                    outcomes.append(self._post(command, rows))
                else:
                    number = chat.number(command.number)
                    rows.append((chat.id, number, command.sender_id, command.created_at, command.body))
                    outcomes.append(number)
            else:
                self._insert(rows)
                rows = []
                outcomes.append(self._other(command))
        self._insert(rows)
        if self._changed:
            note_changes(self._writing, self._changed)
        return outcomes

    def _insert(self, rows: list[_Row]) -> None:
        self._writing.executemany(_INSERT_MESSAGE, rows)
        self._changed.extend(itertools.chain.from_iterable(map(_PLACE, rows)))
        self._uncounted.update(dict.fromkeys(map(_CHAT_OF, rows)))

    def _other(self, command: Command) -> Outcome:
        handler = self._handlers.get(type(command))
        return HANDLERS[type(command)](self._writing, command) if handler is None else handler(self, command)

    def _post(self, command: PostMessage, rows: list[_Row]) -> Outcome:
        chat = self._written_chat(command.chat)
        if chat is None:
            return NotFound("There is no such chat.")
        if command.key is not None:
            known = self._posted(self._writing, chat.id, command.sender_id, command.key)
            if known is not None:
                if known[1] != command.body_hash:
                    return KeyReused("This Idempotency-Key was used before with another body; take a new key.")
                return Repeated(known[0])
        number = chat.number(command.number)
        if command.key is not None:
            self._writing.execute(
                "INSERT INTO idempotency_keys (chat_id, sender_id, key, number, body_hash) VALUES (?,?,?,?,?)",
                (chat.id, command.sender_id, command.key, number, command.body_hash),
            )
        rows.append((chat.id, number, command.sender_id, command.created_at, command.body))
        return number

    def _edit(self, command: EditMessage) -> Outcome:
        chat_id = self._written_id(command.chat)
        edited = self._writing.execute(
            "UPDATE messages SET body = ?, edited_at = ? WHERE chat_id = ? AND number = ? AND sender_id = ?",
            (command.body, command.edited_at, chat_id, command.number, command.editor_id),
        )
        if chat_id is None or not edited.rowcount:
            return NotFound("There is no such message in this chat.")
        self._changed.extend((chat_id, command.number))
        return None

    def _delete(self, command: DeleteMessage) -> Outcome:
        chat_id = self._written_id(command.chat)
        deleted = self._writing.execute(
            "DELETE FROM messages WHERE chat_id = ? AND number = ? AND (? OR sender_id = ?)",
            (chat_id, command.number, command.any_sender, command.deleter_id),
        )
        if not deleted.rowcount:
            return NotFound("There is no such message in this chat.")
        self._writing.execute(
            "UPDATE chats SET last_deleted = max(last_deleted, ?1), counted = counted - (?1 <= counted_to)"
            " WHERE id = ?2",
            (command.number, chat_id),
        )
        self._changed.extend((cast(int, chat_id), command.number))
        return None

    def _end_session(self, command: EndSession) -> Outcome:
        self._writing.execute(
            "INSERT OR IGNORE INTO ended_sessions (session, expires_at) VALUES (?,?)",
            (command.session, command.expires_at),
        )
        return None

    def _end_sessions(self, command: EndSessions) -> Outcome:
        self._writing.execute("UPDATE users SET era = ? WHERE id = ?", (command.era, command.user_id))
        return None

    def _rename_user(self, command: RenameUser) -> Outcome:
        renamed = self._writing.execute(
            "UPDATE users SET name = ? WHERE id = ? AND NOT deleted", (command.name, command.user_id)
        )
        return None if renamed.rowcount else account_gone()

    def _set_password(self, command: SetPassword) -> Outcome:
        if is_gone(self._writing, command.user_id):
            return account_gone()
        if not self._asked_in(command):
            return session_over()
        self._writing.execute(
            "UPDATE users SET password_hash = ?, era = ? WHERE id = ?",
            (command.password_hash, command.era, command.user_id),
        )
        self._writing.execute(
            "DELETE FROM links WHERE purpose = 'reset' AND email = (SELECT email FROM users WHERE id = ?)",
            (command.user_id,),
        )
        return None

    def _asked_in(self, command: SetPassword | DeleteUser) -> bool:
        (era,) = self._writing.execute("SELECT era FROM users WHERE id = ?", (command.user_id,)).fetchone()
        return command.asked_in in (None, era)

    def _delete_user(self, command: DeleteUser) -> Outcome:
        if is_gone(self._writing, command.user_id):
            return account_gone()
        if not self._asked_in(command):
            return session_over()
        (owned,) = self._writing.execute(
            "SELECT count(*) FROM members m JOIN applications a ON a.id = m.application_id"
            " WHERE m.user_id = ? AND m.role = 'owner' AND NOT a.deleted",
            (command.user_id,),
        ).fetchone()
        if owned:
            return must_hand_over(owned)
        self._writing.execute("DELETE FROM members WHERE user_id = ?", (command.user_id,))
        self._writing.execute(
            "DELETE FROM links WHERE email = (SELECT email FROM users WHERE id = ?)", (command.user_id,)
        )
        # The row keeps its id and its ref, which the messages need. Emails in requests are in lower case, so none
        # equals this one.
        self._writing.execute(
            "UPDATE users SET deleted = 1, email = 'Deleted ' || id, name = ?, password_hash = '', era = ?,"
            " operator = 0 WHERE id = ?",
            (DELETED_USER, command.era, command.user_id),
        )
        if command.erase:
            self._erase_later("user", command.user_id)
        return None

    def _end_erasure(self, command: EndErasure) -> Outcome:
        self._writing.executemany(
            "DELETE FROM erasures WHERE kind = 'user' AND id = ?", [(user_id,) for user_id in command.user_ids]
        )
        return None

    def _add_application(self, command: AddApplication) -> Outcome:
        if is_gone(self._writing, command.owner_id):
            return account_gone()
        added = self._writing.execute(
            "INSERT INTO applications (token, name, created_at) VALUES (?,?,?)",
            (command.token, command.name, command.created_at),
        )
        self._writing.execute(
            "INSERT INTO members (user_id, application_id, role) VALUES (?,?,'owner')",
            (command.owner_id, added.lastrowid),
        )
        return None

    def _rename_application(self, command: RenameApplication) -> Outcome:
        if refused := refused_by(self._writing, command.token, command.by):
            return refused
        self._writing.execute(
            "UPDATE applications SET name = ? WHERE token = ? AND NOT deleted", (command.name, command.token)
        )
        return None

    def _delete_application(self, command: DeleteApplication) -> Outcome:
        if refused := refused_by(self._writing, command.token, command.by, owner=True):
            return refused
        deleted = self._writing.execute(
            "UPDATE applications SET deleted = 1, name = '' WHERE token = ? AND NOT deleted RETURNING id",
            (command.token,),
        ).fetchone()
        if deleted is None:
            return NotFound("There is no such application.")
        self._erase_later("application", deleted[0])
        self._written.clear()
        return None

    def _put_member(self, command: PutMember) -> Outcome:
        application = self._writing.execute(_APPLICATION_ID, (command.token,)).fetchone()
        if application is None:
            return NotFound("There is no such application.")
        if refused := refused_by(self._writing, command.token, command.by):
            return refused
        if is_gone(self._writing, command.user_id):
            return no_account()
        put = self._writing.execute(
            "INSERT INTO members (user_id, application_id, role) VALUES (?,?,?)"
            " ON CONFLICT (user_id, application_id) DO UPDATE SET role = excluded.role WHERE role <> 'owner'",
            (command.user_id, *application, command.role),
        )
        return None if put.rowcount else Forbidden("The owner's role can't be changed.")

    def _remove_member(self, command: RemoveMember) -> Outcome:
        if command.by != command.user_id and (refused := refused_by(self._writing, command.token, command.by)):
            return refused
        role = role_of(self._writing, command.token, command.user_id)
        if role is None:
            return no_member()
        if role is Role.OWNER:
            return Forbidden("The owner can't be removed.")
        self._writing.execute(
            f"DELETE FROM members WHERE user_id = ? AND application_id = ({_APPLICATION_ID})",
            (command.user_id, command.token),
        )
        return None

    def _hand_over(self, command: HandOver) -> Outcome:
        if role_of(self._writing, command.token, command.owner_id) is not Role.OWNER:
            return must_own()
        if role_of(self._writing, command.token, command.new_owner_id) is None:
            return no_member()
        self._writing.executemany(
            f"UPDATE members SET role = ? WHERE application_id = ({_APPLICATION_ID}) AND user_id = ?",
            [(role, command.token, user_id) for role, user_id in handed_over(command)],
        )
        return None

    def _add_chat(self, command: AddChat) -> Outcome:
        added = self._writing.execute(
            "INSERT INTO chats (application_id, number, title, created_at)"
            " SELECT a.id, coalesce((SELECT max(number) FROM chats WHERE application_id = a.id), 0) + 1, ?, ?"
            " FROM applications a WHERE a.token = ? AND NOT a.deleted RETURNING number",
            (command.title, command.created_at, command.token),
        ).fetchone()
        if added is None:
            return NotFound("There is no such application.")
        self._writing.execute("UPDATE applications SET chats_count = chats_count + 1 WHERE token = ?", (command.token,))
        return int(added[0])

    def _rename_chat(self, command: RenameChat) -> Outcome:
        chat_id = self._written_id(command.chat)
        self._writing.execute("UPDATE chats SET title = ? WHERE id = ?", (command.title, chat_id))
        return None

    def _delete_chat(self, command: DeleteChat) -> Outcome:
        if refused := refused_by(self._writing, command.chat.token, command.by):
            return refused
        chat_id = self._written_id(command.chat)
        if chat_id is None:
            return NotFound("There is no such chat.")
        self._writing.execute("UPDATE chats SET deleted = 1, title = NULL WHERE id = ?", (chat_id,))
        self._writing.execute(
            "UPDATE applications SET chats_count = chats_count - 1 WHERE token = ?", (command.chat.token,)
        )
        self._erase_later("chat", chat_id)
        del self._written[command.chat]
        return None

    def _erase_later(self, kind: str, number: int) -> None:
        self._writing.execute("INSERT INTO erasures (kind, id, at) VALUES (?,?,?)", (kind, number, _now()))

    _handlers: ClassVar[dict[type[Any], Callable[[SqliteStore, Any], Outcome]]] = {
        EditMessage: _edit,
        DeleteMessage: _delete,
        EndSession: _end_session,
        EndSessions: _end_sessions,
        RenameUser: _rename_user,
        SetPassword: _set_password,
        DeleteUser: _delete_user,
        EndErasure: _end_erasure,
        AddApplication: _add_application,
        RenameApplication: _rename_application,
        DeleteApplication: _delete_application,
        PutMember: _put_member,
        RemoveMember: _remove_member,
        HandOver: _hand_over,
        AddChat: _add_chat,
        RenameChat: _rename_chat,
        DeleteChat: _delete_chat,
    }

    def forget_ids(self) -> None:
        """Must be called when a chat or an application was deleted by another process, before that is reported."""
        self._chat_ids = {}

    def index_lag(self, position: int | None) -> float:
        """How many seconds the oldest change after the position has been waiting. Blocks. Raises Unavailable."""
        row = self._blocking("SELECT noted_at FROM changes WHERE seq > ? ORDER BY seq LIMIT 1", (position or 0,))
        return max(time.time() - row[0][0] / 1000, 0.0) if row else 0.0

    def _blocking(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """Read on any thread, with a connection of the pool. Blocks."""
        try:
            with self._readers.one() as connection:
                return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._soundness.met(error, "be read") from error

    def scanned(self, key: ChatKey, above: int, below: int, limit: int) -> tuple[int, list[int], str]:
        """The newest messages of the chat with numbers above one and below another: its id, their numbers, and their
        texts as they are now, one in each line (with blanks for their own line feeds). The id is 0 when there are none.
        Blocks. Raises Unavailable."""
        numbers, lines, chat_id = self._blocking(_SCANNED, (*key, above, below, limit))[0]
        return chat_id or 0, json.loads(numbers), lines or ""

    def indexed(self, position: int) -> None:
        """The index has durably stored all changes up to the position: the next housekeeping may delete them."""
        self._indexed_to = position

    def _forget_changes(self) -> None:
        if self._indexed_to > self._forgotten_to:
            position = self._indexed_to
            self._transaction(
                lambda: self._writing.execute(
                    "DELETE FROM changes WHERE seq <= ? AND seq < (SELECT max(seq) FROM changes)", (position,)
                )
            )
            self._forgotten_to = position

    def count_messages(self) -> None:
        self._soundness.check()
        self._forget_changes()
        chats = list(itertools.islice(self._uncounted, _CHATS_COUNTED_AT_ONCE))
        if chats:
            self._transaction(lambda: self._writing.executemany(_COUNT, zip(chats)))
            for chat_id in chats:
                del self._uncounted[chat_id]

    def erase(self) -> None:
        """Remove some of the data of deleted chats, applications and users, for some milliseconds. Blocks. Raises
        Unavailable."""
        until = time.monotonic() + _ERASING_S
        while self._transaction(lambda: erase_some(self._writing)) and time.monotonic() < until:
            pass

    def forget_sessions(self, now: int) -> None:
        before = now - ENDED_SESSION_KEPT_MS
        self._transaction(lambda: self._writing.execute("DELETE FROM ended_sessions WHERE expires_at < ?", (before,)))

    def forget_links(self, now: int) -> None:
        def forget() -> None:
            for table in ("links", "invites"):
                self._writing.execute(f"DELETE FROM {table} WHERE expires_at < ?", (now,))

        self._transaction(forget)

    # Reading ---------------------------------------------------------------------------------------------------------

    def _rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        try:
            return self._reading.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._soundness.met(error, "be read") from error

    def _row(self, sql: str, parameters: Sequence[Any]) -> Any:
        rows = self._rows(sql, parameters)
        return rows[0] if rows else None

    async def _far_rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._far_reads, self._blocking, sql, parameters)

    def _written_chat(self, key: ChatKey) -> _Written | None:
        """The chat; None when there is none. Its number is right as a chat that is not known has no rows to insert."""
        chat = self._written.get(key)
        if chat is None:
            found = self._writing.execute(_WRITTEN, key).fetchone()
            if found is not None:
                chat = self._written[key] = _Written(*found)
        return chat

    def _written_id(self, key: ChatKey) -> int | None:
        chat = self._written_chat(key)
        return None if chat is None else chat.id

    def _read_chat_id(self, key: ChatKey) -> int | None:
        """The id of a chat; None when there is no such chat."""
        known = self._chat_ids
        chat_id = known.get(key)
        if chat_id is None:
            row = self._row(_CHAT_ID, key)
            if row is None:
                return None
            if len(known) >= _KNOWN_CHATS:
                known.clear()
            chat_id = known[key] = int(row[0])
        return chat_id

    @staticmethod
    def _posted(connection: sqlite3.Connection, chat_id: int, sender_id: int, key: str) -> tuple[int, bytes] | None:
        found: tuple[int, bytes] | None = connection.execute(
            "SELECT number, body_hash FROM idempotency_keys WHERE chat_id = ? AND sender_id = ? AND key = ?",
            (chat_id, sender_id, key),
        ).fetchone()
        return found

    async def user_by_ref(self, ref: str) -> User | None:
        row = self._row(f"{_USER} AND ref = ?", (ref,))
        return row and User(*row[:6])

    async def user_by_email(self, email: str) -> tuple[User, str] | None:
        row = self._row(f"{_USER} AND email = ?", (email,))
        return row and (User(*row[:6]), row[6])

    async def is_operator(self, user_id: int) -> bool:
        return bool(self._rows("SELECT 1 FROM users WHERE id = ? AND operator", (user_id,)))

    async def operators(self) -> list[User]:
        return [User(*row[:6]) for row in self._rows(f"{_USER} AND operator", ())]

    async def link(self, purpose: Purpose, hash: bytes, now: int) -> str | None:
        row = self._row(
            "SELECT email FROM links WHERE purpose = ? AND hash = ? AND expires_at > ?", (purpose.value, hash, now)
        )
        return row and str(row[0])

    async def invite_token(self, hash: bytes) -> str | None:
        row = self._row(
            "SELECT a.token FROM invites i JOIN applications a ON a.id = i.application_id"
            " WHERE i.hash = ? AND NOT a.deleted",
            (hash,),
        )
        return row and str(row[0])

    async def invites(self, token: str, now: int, *, offset: int, limit: int) -> list[Invite]:
        sql = (
            "SELECT ref, role, uses, used, created_at, expires_at FROM invites"
            f" WHERE application_id = ({_APPLICATION_ID}) AND expires_at > ?"
            " ORDER BY id DESC LIMIT ? OFFSET ?"
        )
        rows = await self._paged(sql, (token, now, limit, offset), offset)
        return [Invite(ref, Role(role), *rest) for ref, role, *rest in rows]

    async def session_lives(self, user_id: int, era: str, session: str) -> bool:
        return bool(self._row(_SESSION, (session, user_id)) == (era, 0))

    async def users_to_erase(self, who: str) -> list[int]:
        rows = self._rows("SELECT id FROM erasures WHERE kind = 'user' AND at < ?", (_now() - _UNDER_WAY_MS,))
        return [user_id for (user_id,) in rows]

    async def sent_by(self, user_ids: Sequence[int], after: Place) -> tuple[Place | None, list[Sent]]:
        parameters = (*(after or (0, 0)), _AT_ONCE, json.dumps(list(user_ids)))
        place, found = json.loads((await self._far_rows(_SENT, parameters))[0][0])
        sent = [Sent(ChatKey(token, chat), number, sender_id) for token, chat, number, sender_id in found]
        return place and tuple(place), sent

    async def application(self, token: str) -> Application | None:
        row = self._row("SELECT token, name, chats_count FROM applications WHERE token = ? AND NOT deleted", (token,))
        return row and Application(*row)

    async def applications_of(self, user_id: int, *, offset: int, limit: int) -> list[Application]:
        sql = (
            "SELECT a.token, a.name, a.chats_count FROM members m JOIN applications a ON a.id = m.application_id"
            " WHERE m.user_id = ? AND NOT a.deleted ORDER BY m.application_id DESC LIMIT ? OFFSET ?"
        )
        return [Application(*row) for row in await self._paged(sql, (user_id, limit, offset), offset)]

    async def _paged(self, sql: str, parameters: Sequence[Any], offset: int) -> list[Any]:
        """Read a page. Deep pages are read on a thread; chat.deep_pages lets each user have one of those at a time."""
        if offset <= DEEP:  # walking past so many takes about 100 µs
            return self._rows(sql, parameters)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._deep_pages, self._deep, sql, parameters)

    def _deep(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        with self._long_reads.turn():
            try:
                self._wal.shorten()
            except (OSError, sqlite3.Error) as error:
                log.warning("The database's log could not be emptied: %s", error)
            return self._blocking(sql, parameters)

    async def role(self, token: str, user_id: int) -> Role | None:
        row = self._row(ROLE, (user_id, token))
        return row and Role(row[0])

    async def member(self, token: str, email: str) -> int | None:
        sql = (
            "SELECT u.id FROM users u JOIN members m ON m.user_id = u.id JOIN applications a ON a.id = m.application_id"
            " WHERE u.email = ? AND a.token = ? AND NOT a.deleted"
        )
        row = self._row(sql, (email, token))
        return row and int(row[0])

    async def members(self, token: str, *, offset: int, limit: int) -> list[Member]:
        # The rows that are skipped are read from the index only, not from the tables.
        sql = (
            "SELECT u.ref, u.email, u.name, m.role FROM (SELECT application_id, user_id FROM members"
            f" WHERE application_id = ({_APPLICATION_ID}) ORDER BY user_id LIMIT ? OFFSET ?) n"
            " JOIN members m ON m.user_id = n.user_id AND m.application_id = n.application_id"
            " JOIN users u ON u.id = n.user_id ORDER BY n.user_id"
        )
        rows = await self._paged(sql, (token, limit, offset), offset)
        return [Member(ref, email, name, Role(role)) for ref, email, name, role in rows]

    async def chat(self, key: ChatKey) -> Chat | None:
        chat_id = self._read_chat_id(key)
        row = chat_id and self._row(f"{_CHAT} WHERE c.id = ? AND NOT c.deleted", (chat_id,))
        return Chat(*row) if row else None

    async def chats(self, token: str, *, offset: int, limit: int) -> list[Chat]:
        sql = (
            f"{_CHAT} WHERE c.application_id = ({_APPLICATION_ID}) AND NOT c.deleted"
            " ORDER BY c.number DESC LIMIT ? OFFSET ?"
        )
        return [Chat(*row) for row in await self._paged(sql, (token, limit, offset), offset)]

    async def message(self, key: ChatKey, number: int) -> Message | None:
        row = self._row(f"{_MESSAGE} WHERE m.chat_id = ? AND m.number = ?", (self._read_chat_id(key), number))
        return row and Message(*row)

    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> list[Message]:
        chat_id = self._read_chat_id(key)
        if offset > DEEP and before is None and after is None:
            chat = await self.chat(key)
            if chat is None or offset >= chat.messages_count:
                return []
            if chat.messages_count == chat.last_number:
                # No number is missing, so the number to begin below is known, and no rows need to be skipped.
                before, offset = max(chat.last_number - offset + 1, 1), 0
        if after is not None:
            rows = self._rows(
                f"{_MESSAGE} WHERE m.chat_id = ? AND m.number > ? ORDER BY m.number LIMIT ?", (chat_id, after, limit)
            )
            rows.reverse()
        elif before is not None:
            rows = await self._paged(
                f"{_MESSAGE} WHERE m.chat_id = ? AND m.number < ? ORDER BY m.number DESC LIMIT ? OFFSET ?",
                (chat_id, before, limit, offset),
                offset,
            )
        else:
            rows = await self._paged(
                f"{_MESSAGE} WHERE m.chat_id = ? ORDER BY m.number DESC LIMIT ? OFFSET ?",
                (chat_id, limit, offset),
                offset,
            )
        return [Message(*row) for row in rows]

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> list[Message]:
        if len(numbers) == 1:  # a quick read, which need not wait for a thread behind long ones
            one = await self.message(key, numbers[0])
            return [] if one is None else [one]
        chat_id, named = self._read_chat_id(key), json.dumps(list(numbers))

        def read() -> list[Message]:
            return [Message(*row) for row in json.loads(self._blocking(_MANY_NUMBERED, (named, chat_id))[0][0])]

        return await asyncio.get_running_loop().run_in_executor(self._far_reads, read)

    async def posted(self, key: ChatKey, sender_id: int, idempotency_key: str) -> tuple[int, bytes] | None:
        chat_id = self._read_chat_id(key)
        try:
            return None if chat_id is None else self._posted(self._reading, chat_id, sender_id, idempotency_key)
        except sqlite3.Error as error:
            raise self._soundness.met(error, "be read") from error


def _now() -> int:
    return time.time_ns() // 1_000_000
