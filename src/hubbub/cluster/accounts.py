"""Applies commands on accounts, links and invites, each in a transaction.

The row of a link or an invite is locked before it is checked, so that it can't be used more often than it allows. A
command is refused before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hubbub.chat.accounts import account_gone
from hubbub.chat.applications import no_application, no_invite, refusal
from hubbub.chat.commands import (
    AcceptInvite,
    AddInvite,
    AddInvitedUser,
    AddLink,
    AddOperator,
    AddUser,
    Outcome,
    RemoveInvite,
    ResetPassword,
    SetOperator,
)
from hubbub.chat.errors import ChatError, Invalid, NotFound
from hubbub.chat.model import Joined, Purpose, Role, User
from hubbub.chat.registration import invited_operator, wrong_invite, wrong_link

ROLE = "SELECT role FROM members WHERE token = %s AND user_id = %s"
_LINK = "SELECT email FROM links WHERE purpose = %s AND hash = %s AND expires_at > %s FOR UPDATE"
_INVITED_OPERATOR = "SELECT 1 FROM links WHERE purpose = 'operator' AND email = %s AND expires_at > %s"
# Once there is an operator, the link that creates the first one is no longer valid.
_SETUP_OVER = "DELETE FROM links WHERE purpose = 'operator' AND email = ''"
# An invite is valid only while its creator still manages the application: it must not let back in a manager who was
# removed, or was made a plain member.
_INVITE = (
    "SELECT id, role, used < uses FROM invites i WHERE hash = %s AND token = %s AND expires_at > %s AND EXISTS"
    " (SELECT 1 FROM members m WHERE m.token = i.token AND m.user_id = i.created_by AND m.role <> 'member') FOR UPDATE"
)


def _one(cursor: Any, sql: str, values: tuple[Any, ...]) -> Any:
    cursor.execute(sql, values)
    return cursor.fetchone()


def is_gone(cursor: Any, user_id: int) -> bool:
    """Whether the account was deleted, which may happen after its request was admitted. If not, it can't be deleted
    until this transaction ends."""
    found = _one(cursor, "SELECT deleted FROM users WHERE id = %s FOR UPDATE", (user_id,))
    return found is not None and bool(found[0])


def has_application(cursor: Any, token: str) -> bool:
    """Whether the application exists. If so, it can't be deleted until this transaction ends. Its row is locked before
    the rows that belong to it."""
    sql = "SELECT 1 FROM applications WHERE token = %s AND NOT deleted FOR UPDATE"
    return _one(cursor, sql, (token,)) is not None


def role_of(cursor: Any, token: str, user_id: int) -> Role | None:
    """The member's role, which can't change until this transaction ends."""
    found = _one(cursor, f"{ROLE} FOR UPDATE", (token, user_id))
    return found and Role(found[0])


def refused_by(cursor: Any, token: str, by: int | None, *, owner: bool = False) -> ChatError | None:
    """The error for a command that the role of the user ``by`` does not allow; None if it is allowed; see
    chat.commands. The application's row is locked first, so that two members who remove each other don't deadlock.
    """
    if by is None:
        return None
    if not has_application(cursor, token):
        return no_application()
    return refusal(role_of(cursor, token, by), owner=owner)


def _register(cursor: Any, command: AddUser) -> Outcome:
    if _one(cursor, _INVITED_OPERATOR, (command.email, command.created_at)) is not None:
        return invited_operator()
    return _add_user(cursor, command)


def _add_user(cursor: Any, command: AddUser) -> Outcome:
    cursor.execute(
        "INSERT INTO users (ref, email, name, password_hash, created_at) VALUES (%s,%s,%s,%s,%s)"
        " ON DUPLICATE KEY UPDATE id = id",
        (command.ref, command.email, command.name, command.password_hash, command.created_at),
    )
    row = _one(cursor, "SELECT id, ref, email, name, created_at, era FROM users WHERE ref = %s", (command.ref,))
    return User(*row) if row else Invalid(["email has already been taken"])


def _add_invited_user(cursor: Any, command: AddInvitedUser) -> Outcome:
    if not has_application(cursor, command.token):
        return wrong_invite()
    invite = _one(cursor, _INVITE, (command.invite, command.token, command.user.created_at))
    if invite is None or not invite[2]:
        return wrong_invite()
    user = _register(cursor, command.user)
    if isinstance(user, User):
        _join(cursor, invite[0], user.id, command.token, invite[1])
    return user


def _add_operator(cursor: Any, command: AddOperator) -> Outcome:
    link = _one(cursor, _LINK, (Purpose.OPERATOR.value, command.link, command.user.created_at))
    if link is None or link[0] not in ("", command.user.email):
        return wrong_link()
    user = _add_user(cursor, command.user)
    if isinstance(user, User):
        cursor.execute("UPDATE users SET operator = TRUE WHERE id = %s", (user.id,))
        cursor.execute("DELETE FROM links WHERE hash = %s", (command.link,))
        cursor.execute(_SETUP_OVER)
    return user


def _set_operator(cursor: Any, command: SetOperator) -> Outcome:
    user = _one(cursor, "SELECT id FROM users WHERE email = %s FOR UPDATE", (command.email,))
    found = user is not None
    if user is not None:
        cursor.execute("UPDATE users SET operator = %s WHERE id = %s", (command.operator, user[0]))
        if command.operator:
            cursor.execute(_SETUP_OVER)
    if not command.operator:
        link = (Purpose.OPERATOR.value, command.email)
        cursor.execute("DELETE FROM links WHERE purpose = %s AND email = %s", link)
        found = found or cursor.rowcount > 0
    return None if found else NotFound(f"There is no account with the email {command.email}.")


def _add_link(cursor: Any, command: AddLink) -> Outcome:
    cursor.execute(
        "INSERT INTO links (purpose, email, hash, expires_at) VALUES (%s,%s,%s,%s)"
        " ON DUPLICATE KEY UPDATE hash = VALUES(hash), expires_at = VALUES(expires_at)",
        (command.purpose.value, command.email, command.hash, command.expires_at),
    )
    return None


def _reset_password(cursor: Any, command: ResetPassword) -> Outcome:
    link = _one(cursor, _LINK, (Purpose.RESET.value, command.link, command.now))
    if link is None:
        return wrong_link()
    cursor.execute(
        "UPDATE users SET password_hash = %s, era = %s WHERE email = %s", (command.password_hash, command.era, link[0])
    )
    if not cursor.rowcount:  # the account was deleted before the link was stored
        return wrong_link()
    cursor.execute("DELETE FROM links WHERE hash = %s", (command.link,))
    return None


def _add_invite(cursor: Any, command: AddInvite) -> Outcome:
    invite = command.invite
    if refused := refused_by(cursor, command.token, command.created_by):
        return refused
    cursor.execute(
        "INSERT INTO invites (token, ref, hash, role, uses, created_at, expires_at, created_by)"
        " VALUES (%s,%s,%s,%s,%s,%s,%s,%s)",
        (
            *(command.token, invite.ref, command.hash, invite.role.value),
            *(invite.uses, invite.created_at, invite.expires_at, command.created_by),
        ),
    )
    return None


def _remove_invite(cursor: Any, command: RemoveInvite) -> Outcome:
    if refused := refused_by(cursor, command.token, command.by):
        return refused
    cursor.execute("DELETE FROM invites WHERE token = %s AND ref = %s", (command.token, command.ref))
    return None if cursor.rowcount else no_invite()


def _accept_invite(cursor: Any, command: AcceptInvite) -> Outcome:
    if not has_application(cursor, command.token):
        return wrong_invite()
    if is_gone(cursor, command.user_id):
        return account_gone()
    invite = _one(cursor, _INVITE, (command.hash, command.token, command.now))
    if invite is None:
        return wrong_invite()
    number, role, left = invite
    member = (command.token, command.user_id)
    found = _one(cursor, "SELECT role FROM members WHERE token = %s AND user_id = %s FOR UPDATE", member)
    if found is not None and Role(found[0]).covers(Role(role)):
        return Joined(command.token, Role(found[0]))
    if not left:
        return wrong_invite()
    _join(cursor, number, command.user_id, command.token, role)
    return Joined(command.token, Role(role))


def _join(cursor: Any, invite: int, user: int, token: str, role: str) -> None:
    cursor.execute("UPDATE invites SET used = used + 1 WHERE id = %s", (invite,))
    cursor.execute(
        "INSERT INTO members (token, user_id, role, app_created_at)"
        " SELECT token, %s, %s, created_at FROM applications WHERE token = %s"
        " ON DUPLICATE KEY UPDATE role = VALUES(role)",
        (user, role, token),
    )


HANDLERS: dict[type[Any], Callable[[Any, Any], Outcome]] = {
    AddUser: _register,
    AddInvitedUser: _add_invited_user,
    AddOperator: _add_operator,
    SetOperator: _set_operator,
    AddLink: _add_link,
    ResetPassword: _reset_password,
    AddInvite: _add_invite,
    RemoveInvite: _remove_invite,
    AcceptInvite: _accept_invite,
}
