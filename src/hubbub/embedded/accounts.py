"""Applies commands on accounts, links and invites, each within the transaction of its batch. A command is refused
before anything is changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from hubbub.chat.accounts import account_gone
from hubbub.chat.applications import no_invite, refusal
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

ROLE = (
    "SELECT m.role FROM applications a JOIN members m ON m.application_id = a.id AND m.user_id = ?"
    " WHERE a.token = ? AND NOT a.deleted"
)
_LINK = "SELECT email FROM links WHERE purpose = ? AND hash = ? AND expires_at > ?"
_INVITED_OPERATOR = "SELECT 1 FROM links WHERE purpose = 'operator' AND email = ? AND expires_at > ?"
# Once there is an operator, the link that creates the first one is no longer valid.
_SETUP_OVER = "DELETE FROM links WHERE purpose = 'operator' AND email = ''"
# An invite is valid only while its creator still manages the application: it must not let back in a manager who was
# removed, or was made a plain member.
_INVITE = (
    "SELECT i.id, i.application_id, i.role, i.used < i.uses FROM invites i JOIN applications a ON a.id ="
    " i.application_id JOIN members m ON m.application_id = a.id AND m.user_id = i.created_by AND m.role <> 'member'"
    " WHERE i.hash = ? AND a.token = ? AND NOT a.deleted AND i.expires_at > ?"
)


def is_gone(database: sqlite3.Connection, user_id: int) -> bool:
    """Whether the account was deleted, which may happen after its request was admitted."""
    return database.execute("SELECT 1 FROM users WHERE id = ? AND deleted", (user_id,)).fetchone() is not None


def role_of(database: sqlite3.Connection, token: str, user_id: int) -> Role | None:
    found = database.execute(ROLE, (user_id, token)).fetchone()
    return found and Role(found[0])


def refused_by(database: sqlite3.Connection, token: str, by: int | None, *, owner: bool = False) -> ChatError | None:
    """The error for a command that the role of the user ``by`` does not allow; None if it is allowed; see
    chat.commands."""
    return None if by is None else refusal(role_of(database, token, by), owner=owner)


def _register(database: sqlite3.Connection, command: AddUser) -> Outcome:
    if database.execute(_INVITED_OPERATOR, (command.email, command.created_at)).fetchone() is not None:
        return invited_operator()
    return _add_user(database, command)


def _add_user(database: sqlite3.Connection, command: AddUser) -> Outcome:
    added = database.execute(
        "INSERT INTO users (ref, email, name, password_hash, created_at) VALUES (?,?,?,?,?)"
        " ON CONFLICT (email) DO NOTHING RETURNING id",
        (command.ref, command.email, command.name, command.password_hash, command.created_at),
    ).fetchone()
    if added is None:
        return Invalid(["email has already been taken"])
    return User(added[0], command.ref, command.email, command.name, command.created_at)


def _add_invited_user(database: sqlite3.Connection, command: AddInvitedUser) -> Outcome:
    invite = database.execute(_INVITE, (command.invite, command.token, command.user.created_at)).fetchone()
    if invite is None or not invite[3]:
        return wrong_invite()
    user = _register(database, command.user)
    if isinstance(user, User):
        _join(database, invite[0], user.id, invite[1], invite[2])
    return user


def _add_operator(database: sqlite3.Connection, command: AddOperator) -> Outcome:
    at = command.user.created_at
    link = database.execute(_LINK, (Purpose.OPERATOR.value, command.link, at)).fetchone()
    if link is None or link[0] not in ("", command.user.email):
        return wrong_link()
    user = _add_user(database, command.user)
    if isinstance(user, User):
        database.execute("UPDATE users SET operator = 1 WHERE id = ?", (user.id,))
        database.execute("DELETE FROM links WHERE hash = ?", (command.link,))
        database.execute(_SETUP_OVER)
    return user


def _set_operator(database: sqlite3.Connection, command: SetOperator) -> Outcome:
    changed = database.execute("UPDATE users SET operator = ? WHERE email = ?", (command.operator, command.email))
    found = changed.rowcount
    if found and command.operator:
        database.execute(_SETUP_OVER)
    if not command.operator:
        link = (Purpose.OPERATOR.value, command.email)
        found += database.execute("DELETE FROM links WHERE purpose = ? AND email = ?", link).rowcount
    return None if found else NotFound(f"There is no account with the email {command.email}.")


def _add_link(database: sqlite3.Connection, command: AddLink) -> Outcome:
    database.execute(
        "INSERT INTO links (purpose, email, hash, expires_at) VALUES (?,?,?,?) ON CONFLICT (purpose, email)"
        " DO UPDATE SET hash = excluded.hash, expires_at = excluded.expires_at",
        (command.purpose.value, command.email, command.hash, command.expires_at),
    )
    return None


def _reset_password(database: sqlite3.Connection, command: ResetPassword) -> Outcome:
    link = database.execute(_LINK, (Purpose.RESET.value, command.link, command.now)).fetchone()
    if link is None:
        return wrong_link()
    done = database.execute(
        "UPDATE users SET password_hash = ?, era = ? WHERE email = ?", (command.password_hash, command.era, link[0])
    )
    if not done.rowcount:  # the account was deleted before the link was stored
        return wrong_link()
    database.execute("DELETE FROM links WHERE hash = ?", (command.link,))
    return None


def _add_invite(database: sqlite3.Connection, command: AddInvite) -> Outcome:
    if refused := refused_by(database, command.token, command.created_by):
        return refused
    invite = command.invite
    database.execute(
        "INSERT INTO invites (application_id, ref, hash, role, uses, created_at, expires_at, created_by)"
        " SELECT id, ?, ?, ?, ?, ?, ?, ? FROM applications WHERE token = ? AND NOT deleted",
        (
            *(invite.ref, command.hash, invite.role.value, invite.uses, invite.created_at, invite.expires_at),
            *(command.created_by, command.token),
        ),
    )
    return None


def _remove_invite(database: sqlite3.Connection, command: RemoveInvite) -> Outcome:
    if refused := refused_by(database, command.token, command.by):
        return refused
    removed = database.execute(
        "DELETE FROM invites WHERE ref = ? AND application_id = (SELECT id FROM applications WHERE token = ?)",
        (command.ref, command.token),
    )
    return None if removed.rowcount else no_invite()


def _accept_invite(database: sqlite3.Connection, command: AcceptInvite) -> Outcome:
    if is_gone(database, command.user_id):
        return account_gone()
    invite = database.execute(_INVITE, (command.hash, command.token, command.now)).fetchone()
    if invite is None:
        return wrong_invite()
    number, application, role, left = invite
    found = database.execute(
        "SELECT role FROM members WHERE user_id = ? AND application_id = ?", (command.user_id, application)
    ).fetchone()
    if found is not None and Role(found[0]).covers(Role(role)):
        return Joined(command.token, Role(found[0]))
    if not left:
        return wrong_invite()
    _join(database, number, command.user_id, application, role)
    return Joined(command.token, Role(role))


def _join(database: sqlite3.Connection, invite: int, user: int, application: int, role: str) -> None:
    database.execute("UPDATE invites SET used = used + 1 WHERE id = ?", (invite,))
    database.execute(
        "INSERT INTO members (user_id, application_id, role) VALUES (?,?,?)"
        " ON CONFLICT (user_id, application_id) DO UPDATE SET role = excluded.role",
        (user, application, role),
    )


HANDLERS: dict[type[Any], Callable[[sqlite3.Connection, Any], Outcome]] = {
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
