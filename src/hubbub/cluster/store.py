"""The store of a cluster: MySQL 8 or MariaDB 10.11+, and anything that speaks their protocol and SQL. See
chat.ports.Store.

All rows of an application are keyed by its token first, and no statement on messages, chats or keys reads two
applications' rows by anything but their full keys, so the tables can be split by token.

The directory (users, applications, members, chats) is written here directly. Messages come through the queue, see
cluster.deliveries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from msgspec.structs import replace

from hubbub.chat.accounts import account_gone, must_hand_over, no_account, session_over
from hubbub.chat.applications import handed_over, must_own, no_member
from hubbub.chat.commands import (
    AddApplication,
    AddChat,
    Command,
    DeleteApplication,
    DeleteChat,
    DeleteUser,
    EndErasure,
    EndSession,
    EndSessions,
    HandOver,
    Outcome,
    PutMember,
    RemoveMember,
    RenameApplication,
    RenameChat,
    RenameUser,
    SetPassword,
)
from hubbub.chat.errors import Forbidden, NotFound, Unavailable
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
from hubbub.cluster.accounts import HANDLERS, ROLE, has_application, is_gone, refused_by, role_of
from hubbub.cluster.database import Database, Deadlocked, marks
from hubbub.cluster.dead_letters import erase_texts
from hubbub.cluster.deliveries import CHANGED_MESSAGE, MESSAGE
from hubbub.cluster.erasing import UNDER_WAY_S, mark_chats, rename_later
from hubbub.cluster.protocol import Position

_DEADLOCKS = 4  # retries of one batch after a deadlock
_CHATS_COUNTED_AT_ONCE = 20
_WALKED_AT_ONCE = 2000
_CHAT = """
    SELECT c.number, c.title,
           c.counted + (SELECT COUNT(*) FROM messages m
                        WHERE m.token = c.token AND m.chat = c.number AND m.number > c.counted_to),
           GREATEST(c.last_number, COALESCE((SELECT MAX(m.number) FROM messages m
                                             WHERE m.token = c.token AND m.chat = c.number), 0))
    FROM chats c JOIN applications a ON a.token = c.token
    WHERE c.token = %s AND NOT c.deleted AND NOT a.deleted
"""
_APPLICATION = "SELECT a.token, a.name, a.chats_count - a.chats_deleted"
_USER = "SELECT id, ref, email, name, created_at, era, password_hash FROM users WHERE NOT deleted"
_SESSION = "SELECT era, EXISTS (SELECT 1 FROM ended_sessions WHERE session = %s) FROM users WHERE id = %s"
_ROLE_NOW = f"{ROLE} AND EXISTS (SELECT 1 FROM applications a WHERE a.token = members.token AND NOT a.deleted)"


class MySqlStore:
    """See chat.ports.Store. ``at`` is the position that a replica must have reached to answer.

    ``uncounted`` has the chats that ``count_messages`` will look at.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.uncounted: set[ChatKey] = set()

    # Writing ---------------------------------------------------------------------------------------------------------

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        """Apply directory commands only: messages go through the queue. Some commands lock a user before a link, others
        a link before a user, so two of them can deadlock: the batch is then run again.
        """
        for _ in range(_DEADLOCKS):
            with suppress(Deadlocked):
                return self._apply(batch)
        return self._apply(batch)

    async def change(self, command: Command) -> Outcome:
        """As ``apply``, for one command and without blocking. Raises Unavailable: it may have been applied or not."""
        (outcome,) = await self._database.change(lambda: self.apply([command]))
        return outcome

    def _apply(self, batch: Sequence[Command]) -> list[Outcome]:
        return self._database.run(lambda cursor: [self._outcome(cursor, command) for command in batch])

    def _outcome(self, cursor: Any, command: Command) -> Outcome:
        handler = self._handlers.get(type(command))
        return HANDLERS[type(command)](cursor, command) if handler is None else handler(self, cursor, command)

    def _end_session(self, cursor: Any, command: EndSession) -> Outcome:
        cursor.execute(
            "INSERT INTO ended_sessions (session, expires_at) VALUES (%s,%s)"
            " ON DUPLICATE KEY UPDATE expires_at = VALUES(expires_at)",
            (command.session, command.expires_at),
        )
        return None

    def _end_sessions(self, cursor: Any, command: EndSessions) -> Outcome:
        cursor.execute("UPDATE users SET era = %s WHERE id = %s", (command.era, command.user_id))
        return None

    def _rename_user(self, cursor: Any, command: RenameUser) -> Outcome:
        if is_gone(cursor, command.user_id):
            return account_gone()
        cursor.execute("UPDATE users SET name = %s WHERE id = %s", (command.name, command.user_id))
        rename_later(cursor, command.user_id)
        return None

    def _set_password(self, cursor: Any, command: SetPassword) -> Outcome:
        if is_gone(cursor, command.user_id):
            return account_gone()
        if not _asked_in(cursor, command):
            return session_over()
        cursor.execute(
            "UPDATE users SET password_hash = %s, era = %s WHERE id = %s",
            (command.password_hash, command.era, command.user_id),
        )
        cursor.execute(
            "DELETE FROM links WHERE purpose = 'reset' AND email = (SELECT email FROM users WHERE id = %s)",
            (command.user_id,),
        )
        return None

    def _delete_user(self, cursor: Any, command: DeleteUser) -> Outcome:
        if is_gone(cursor, command.user_id):
            return account_gone()
        if not _asked_in(cursor, command):
            return session_over()
        cursor.execute(
            "SELECT COUNT(*) FROM members m JOIN applications a ON a.token = m.token"
            " WHERE m.user_id = %s AND m.role = 'owner' AND NOT a.deleted",
            (command.user_id,),
        )
        (owned,) = cursor.fetchone()
        if owned:
            return must_hand_over(owned)
        rename_later(cursor, command.user_id)
        for table in ("members", "former_members"):
            cursor.execute(f"DELETE FROM {table} WHERE user_id = %s", (command.user_id,))
        cursor.execute(
            "DELETE FROM links WHERE purpose IN ('operator', 'reset')"  # by the key, to wait for no other row
            " AND email = (SELECT email FROM users WHERE id = %s)",
            (command.user_id,),
        )
        # The row keeps its id and its ref, which the messages need. Emails in requests are in lower case, so
        # none equals this one.
        cursor.execute(
            "UPDATE users SET deleted = TRUE, email = CONCAT('Deleted ', id), name = %s, password_hash = '', era = %s,"
            " operator = FALSE WHERE id = %s",
            (DELETED_USER, command.era, command.user_id),
        )
        if command.erase:
            cursor.execute(
                "INSERT INTO erasures (kind, token, user_id, at) VALUES ('user', '', %s, UNIX_TIMESTAMP())",
                (command.user_id,),
            )
        return None

    def _end_erasure(self, cursor: Any, command: EndErasure) -> Outcome:
        erase_texts(cursor, command.user_ids)
        cursor.execute(
            f"DELETE FROM erasures WHERE kind = 'user' AND user_id IN ({marks(command.user_ids)})", command.user_ids
        )
        return None

    def _add_application(self, cursor: Any, command: AddApplication) -> Outcome:
        if is_gone(cursor, command.owner_id):
            return account_gone()
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
        if refused := refused_by(cursor, command.token, command.by):
            return refused
        cursor.execute(
            "UPDATE applications SET name = %s WHERE token = %s AND NOT deleted", (command.name, command.token)
        )
        return None

    def _delete_application(self, cursor: Any, command: DeleteApplication) -> Outcome:
        if refused := refused_by(cursor, command.token, command.by, owner=True):
            return refused
        cursor.execute(
            "UPDATE applications SET deleted = TRUE, name = '' WHERE token = %s AND NOT deleted", (command.token,)
        )
        if not cursor.rowcount:
            return NotFound("There is no such application.")
        cursor.execute(
            "INSERT INTO erasures (kind, token, at) VALUES ('application', %s, UNIX_TIMESTAMP())", (command.token,)
        )
        return None

    def _put_member(self, cursor: Any, command: PutMember) -> Outcome:
        if not has_application(cursor, command.token):
            return NotFound("There is no such application.")
        if is_gone(cursor, command.user_id):
            return no_account()
        if refused := refused_by(cursor, command.token, command.by):
            return refused
        if role_of(cursor, command.token, command.user_id) is Role.OWNER:
            return Forbidden("The owner's role can't be changed.")
        cursor.execute(
            "INSERT INTO members (token, user_id, role, app_created_at)"
            " SELECT token, %s, %s, created_at FROM applications WHERE token = %s"
            " ON DUPLICATE KEY UPDATE role = VALUES(role)",
            (command.user_id, command.role.value, command.token),
        )
        return None

    def _remove_member(self, cursor: Any, command: RemoveMember) -> Outcome:
        if command.by != command.user_id and (refused := refused_by(cursor, command.token, command.by)):
            return refused
        role = role_of(cursor, command.token, command.user_id)
        if role is None:
            return no_member()
        if role is Role.OWNER:
            return Forbidden("The owner can't be removed.")
        cursor.execute("DELETE FROM members WHERE token = %s AND user_id = %s", (command.token, command.user_id))
        cursor.execute(
            "INSERT IGNORE INTO former_members (token, user_id) VALUES (%s, %s)", (command.token, command.user_id)
        )
        return None

    def _hand_over(self, cursor: Any, command: HandOver) -> Outcome:
        if (
            not has_application(cursor, command.token)
            or role_of(cursor, command.token, command.owner_id) is not Role.OWNER
        ):
            return must_own()
        # The account's row is locked before its membership, in the same order as when an account is deleted.
        if is_gone(cursor, command.new_owner_id) or role_of(cursor, command.token, command.new_owner_id) is None:
            return no_member()
        for role, user_id in handed_over(command):
            cursor.execute(
                "UPDATE members SET role = %s WHERE token = %s AND user_id = %s", (role.value, command.token, user_id)
            )
        return None

    def _add_chat(self, cursor: Any, command: AddChat) -> Outcome:
        cursor.execute(
            "UPDATE applications SET chats_count = chats_count + 1 WHERE token = %s AND NOT deleted", (command.token,)
        )
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
        cursor.execute(
            "UPDATE chats SET title = %s WHERE token = %s AND number = %s AND NOT deleted",
            (command.title, *command.chat),
        )
        return None

    def _delete_chat(self, cursor: Any, command: DeleteChat) -> Outcome:
        if refused := refused_by(cursor, command.chat.token, command.by):
            return refused
        # A writer locks the same row before it stores anything in the chat.
        cursor.execute("SELECT 1 FROM chats WHERE token = %s AND number = %s AND NOT deleted FOR UPDATE", command.chat)
        if cursor.fetchone() is None:
            return NotFound("There is no such chat.")
        mark_chats(cursor, command.chat.token, [command.chat.number])
        cursor.execute(
            "UPDATE applications SET chats_deleted = chats_deleted + 1 WHERE token = %s", (command.chat.token,)
        )
        return None

    _handlers: ClassVar[dict[type[Any], Callable[[MySqlStore, Any, Any], Outcome]]] = {
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

    def count_messages(self) -> None:
        waiting = sorted(self.uncounted)
        for start in range(0, len(waiting), _CHATS_COUNTED_AT_ONCE):
            chats = waiting[start : start + _CHATS_COUNTED_AT_ONCE]
            # Before the transaction: messages that are posted while it runs must be counted the next time.
            self.uncounted.difference_update(chats)
            try:
                self._database.run(lambda cursor, chats=chats: self._count(cursor, chats))  # type: ignore[misc]
            except Unavailable:
                self.uncounted.update(chats)
                raise

    @staticmethod
    def _count(cursor: Any, chats: Sequence[ChatKey]) -> None:
        # The rows are locked first, so that a post in between finds either the old counted_to or the new one.
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

    def forget_sessions(self, now: int) -> None:
        before = now - ENDED_SESSION_KEPT_MS
        self._database.run(lambda cursor: cursor.execute("DELETE FROM ended_sessions WHERE expires_at < %s", (before,)))

    def forget_links(self, now: int) -> None:
        for table in ("links", "invites"):
            sql = f"DELETE FROM {table} WHERE expires_at < %s"
            self._database.run(lambda cursor, sql=sql: cursor.execute(sql, (now,)))  # type: ignore[misc]

    def clock(self) -> int:
        """The database's time, in seconds since 1970."""

        def work(cursor: Any) -> int:
            cursor.execute("SELECT UNIX_TIMESTAMP()")
            return int(cursor.fetchone()[0])

        return self._database.run(work, commit=False)

    def forget_publishers(self, before: int) -> None:
        """Delete the publishers whose last delivery was applied before ``before`` (seconds since 1970)."""
        self._database.run(lambda cursor: cursor.execute("DELETE FROM publishers WHERE applied_at < %s", (before,)))

    # Reading ---------------------------------------------------------------------------------------------------------

    async def users_to_erase(self, who: str) -> list[int]:
        def work(cursor: Any) -> list[int]:
            cursor.execute(
                "UPDATE erasures SET who = %s, until = UNIX_TIMESTAMP() + 60"
                " WHERE kind = 'user' AND at < UNIX_TIMESTAMP() - %s AND (who = %s OR until < UNIX_TIMESTAMP())",
                (who, UNDER_WAY_S, who),
            )
            cursor.execute("SELECT user_id FROM erasures WHERE kind = 'user' AND who = %s", (who,))
            return [user_id for (user_id,) in cursor.fetchall()]

        return await self._database.soon(lambda: self._database.run(work))

    async def sent_by(self, user_ids: Sequence[int], after: Place) -> tuple[Place | None, list[Sent]]:
        token, chat, number = after or ("", 0, 0)
        rows = await self._database.rows(
            "SELECT token, chat, number, sender_id FROM messages WHERE (token = %s AND chat = %s AND number > %s)"
            " OR (token = %s AND chat > %s) OR token > %s ORDER BY token, chat, number LIMIT %s",
            (token, chat, number, token, chat, token, _WALKED_AT_ONCE),
        )
        users = set(user_ids)
        sent = [Sent(ChatKey(*row[:2]), *row[2:]) for row in rows if row[3] in users]
        return (tuple(rows[-1][:3]) if rows else None), sent

    async def user_by_ref(self, ref: str) -> User | None:
        row = await self._database.row(f"{_USER} AND ref = %s", (ref,))
        return row and User(*row[:6])

    async def user_by_email(self, email: str) -> tuple[User, str] | None:
        row = await self._database.row(f"{_USER} AND email = %s", (email,))
        return row and (User(*row[:6]), row[6])

    async def is_operator(self, user_id: int) -> bool:
        return bool(await self._database.rows("SELECT 1 FROM users WHERE id = %s AND operator", (user_id,)))

    async def operators(self) -> list[User]:
        return [User(*row[:6]) for row in await self._database.rows(f"{_USER} AND operator", ())]

    async def link(self, purpose: Purpose, hash: bytes, now: int) -> str | None:
        row = await self._database.row(
            "SELECT email FROM links WHERE purpose = %s AND hash = %s AND expires_at > %s", (purpose.value, hash, now)
        )
        return row and str(row[0])

    async def invite_token(self, hash: bytes) -> str | None:
        row = await self._database.row(
            "SELECT i.token FROM invites i JOIN applications a ON a.token = i.token"
            " WHERE i.hash = %s AND NOT a.deleted",
            (hash,),
        )
        return row and str(row[0])

    async def invites(self, token: str, now: int, *, offset: int, limit: int) -> list[Invite]:
        rows = await self._database.rows(
            "SELECT ref, role, uses, used, created_at, expires_at FROM invites"
            " WHERE token = (SELECT token FROM applications WHERE token = %s AND NOT deleted) AND expires_at > %s"
            " ORDER BY id DESC LIMIT %s OFFSET %s",
            (token, now, limit, offset),
        )
        return [Invite(ref, Role(role), *rest) for ref, role, *rest in rows]

    async def session_lives(self, user_id: int, era: str, session: str) -> bool:
        return bool(await self._database.row(_SESSION, (session, user_id)) == (era, 0))

    async def application(self, token: str) -> Application | None:
        row = await self._database.row(
            f"{_APPLICATION} FROM applications a WHERE a.token = %s AND NOT a.deleted", (token,)
        )
        return row and Application(*row)

    async def applications_of(self, user_id: int, *, offset: int, limit: int) -> list[Application]:
        rows = await self._database.rows(
            f"{_APPLICATION} FROM members m JOIN applications a ON a.token = m.token AND NOT a.deleted"
            " WHERE m.user_id = %s ORDER BY m.app_created_at DESC, m.position DESC LIMIT %s OFFSET %s",
            (user_id, limit, offset),
        )
        return [Application(*row) for row in rows]

    async def role(self, token: str, user_id: int) -> Role | None:
        row = await self._database.row(_ROLE_NOW, (token, user_id))
        return row and Role(row[0])

    async def member(self, token: str, email: str) -> int | None:
        sql = "SELECT u.id FROM users u JOIN members m ON m.user_id = u.id WHERE u.email = %s AND m.token = %s"
        row = await self._database.row(sql, (email, token))
        return row and int(row[0])

    async def members(self, token: str, *, offset: int, limit: int) -> list[Member]:
        rows = await self._database.rows(
            "SELECT u.ref, u.email, u.name, m.role FROM (SELECT user_id, role FROM members WHERE token = %s"
            " ORDER BY user_id LIMIT %s OFFSET %s) m JOIN users u ON u.id = m.user_id ORDER BY m.user_id",
            (token, limit, offset),
        )
        return [Member(ref, email, name, Role(role)) for ref, email, name, role in rows]

    async def chat(self, key: ChatKey) -> Chat | None:
        row = await self._database.row(f"{_CHAT} AND c.number = %s", key)
        return row and Chat(*row)

    async def chats(self, token: str, *, offset: int, limit: int) -> list[Chat]:
        rows = await self._database.rows(f"{_CHAT} ORDER BY c.number DESC LIMIT %s OFFSET %s", (token, limit, offset))
        return [Chat(*row) for row in rows]

    async def message(self, key: ChatKey, number: int, *, at: Position | None = None) -> Message | None:
        """``at`` is the position that a replica must have reached to answer; the same holds for ``messages``."""
        row = await self._database.row(f"{MESSAGE} AND number = %s", (*key, number), at)
        return row and Message(*row)

    async def numbered(self, key: ChatKey, numbers: Sequence[int], *, at: Position | None = None) -> list[Message]:
        if not numbers:
            return []
        sql = f"{MESSAGE} AND number IN ({marks(numbers)})"
        return [Message(*row) for row in await self._database.rows(sql, (*key, *numbers), at)]

    async def ordered(self, key: ChatKey, numbers: Sequence[int]) -> list[tuple[Message, int]]:
        """The messages with these numbers that exist, each with the order of its last change."""
        sql = f"{CHANGED_MESSAGE} AND number IN ({marks(numbers)})"
        return [(Message(*row[:-1]), int(row[-1])) for row in await self._database.rows(sql, (*key, *numbers))]

    async def with_refs(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, each with its sender's public id, which entries written by a version before 0.2 lack."""
        lacking = sorted({message.sender_id for message in messages if not message.sender_ref})
        if not lacking:
            return list(messages)
        rows = await self._database.rows(f"SELECT id, ref FROM users WHERE id IN ({marks(lacking)})", lacking)
        refs: dict[int, str] = dict(rows)
        return [
            message if message.sender_ref else replace(message, sender_ref=refs.get(message.sender_id, ""))
            for message in messages
        ]

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
            rows = await self._database.rows(
                f"{MESSAGE} AND number > %s ORDER BY number LIMIT %s", (*key, after, limit), at
            )
            rows.reverse()
        elif before is not None:
            rows = await self._database.rows(
                f"{MESSAGE} AND number < %s ORDER BY number DESC LIMIT %s OFFSET %s", (*key, before, limit, offset), at
            )
        else:
            rows = await self._database.rows(
                f"{MESSAGE} ORDER BY number DESC LIMIT %s OFFSET %s", (*key, limit, offset), at
            )
        return [Message(*row) for row in rows]

    async def transactions(self, shard: int) -> int:
        """The number of transactions applied to the shard. Rows that were read before this call are not newer."""
        row = await self._database.row("SELECT position FROM shards WHERE shard = %s", (shard,))
        return int(row[0]) if row else 0

    async def set_aside(self, key: ChatKey, numbers: Sequence[int]) -> set[int]:
        """The numbers for which an acknowledged command is set aside."""
        rows = await self._database.rows(
            "SELECT DISTINCT number FROM set_aside WHERE token = %s AND chat = %s AND acknowledged"
            f" AND number IN ({marks(numbers)})",
            (*key, *numbers),
        )
        return {int(number) for (number,) in rows}

    async def posted(self, key: ChatKey, sender_id: int, idempotency_key: str) -> tuple[int, bytes] | None:
        row = await self._database.row(
            "SELECT number, body_hash FROM idempotency_keys"
            " WHERE token = %s AND chat = %s AND sender_id = %s AND `key` = %s",
            (*key, sender_id, idempotency_key),
        )
        return row and (int(row[0]), bytes(row[1]))


def _asked_in(cursor: Any, command: SetPassword | DeleteUser) -> bool:
    """Whether the command names the era that the user is in, or no era. The user's row must be locked."""
    cursor.execute("SELECT era FROM users WHERE id = %s", (command.user_id,))
    return command.asked_in in (None, cursor.fetchone()[0])
