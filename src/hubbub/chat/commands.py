"""Commands: the changes that a client can ask for. A command that was accepted is on disk, or will be, exactly once.

``Store.apply`` answers each command with its outcome: the value named in the command's docstring, or the ChatError
that refuses it. A refused command has changed nothing.

``by`` is the id of the user who asks for a command, None if that is the service itself. The command is refused with
NotFound when the user is no longer a member of the application, and with Forbidden when their role no longer allows it.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from hubbub.chat.errors import ChatError
from hubbub.chat.model import ChatKey, Invite, Purpose, Role


class _Command(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A command. Encoded, it is an array that begins with the name of its class, so that processes can pass commands on
    to each other.
    """


class AddUser(_Command, frozen=True):
    """Outcome: the User. Refused with Invalid when the email is taken, and with Forbidden while a link would make an
    operator's account with it.
    """

    ref: str
    email: str
    name: str
    password_hash: str
    created_at: int


class AddInvitedUser(_Command, frozen=True):
    """A new user who uses an invite of the application at once. Outcome: the User. Refused with WrongCode when the
    invite is not there, used up or expired, and as AddUser.
    """

    user: AddUser
    token: str
    invite: bytes


class AddOperator(_Command, frozen=True):
    """A new user who is an operator, by a link, which this uses up. Outcome: the User. Refused with WrongCode when
    there is no such link for this email, and with Invalid when the email is taken.
    """

    user: AddUser
    link: bytes


class SetOperator(_Command, frozen=True):
    """Marks the account with this email as an operator's, or removes the mark and any link that would make an
    operator's account. Outcome: None. Refused with NotFound when there is neither.
    """

    email: str
    operator: bool


class AddLink(_Command, frozen=True):
    """A link that works once, for one email, or for any if it is empty. Outcome: None. An earlier link for the same
    email and purpose no longer works.
    """

    purpose: Purpose
    email: str
    hash: bytes
    expires_at: int


class ResetPassword(_Command, frozen=True):
    """Sets a password by a link, which this uses up; all sessions of the user end. Outcome: None. Refused with
    WrongCode when there is no such link. ``era`` was never used before. ``user_id`` is the link's user; 0 in a command
    that an earlier version queued.
    """

    link: bytes
    password_hash: str
    era: str
    now: int
    user_id: int = 0


class AddInvite(_Command, frozen=True):
    """Outcome: None. The invite is valid as long as the user who made it, ``created_by``, manages the application. As
    with ``by``, the command is refused when they don't.
    """

    token: str
    invite: Invite
    hash: bytes
    created_by: int


class RemoveInvite(_Command, frozen=True):
    """Outcome: None. Refused with NotFound when the application has no such invite."""

    token: str
    ref: str
    by: int | None = None


class AcceptInvite(_Command, frozen=True):
    """Outcome: the Joined. Refused with WrongCode when the invite is not there, used up or expired.

    For a user who has such a role already, nothing changes and the invite is not used up, so that a retry gets the same
    answer.
    """

    token: str
    hash: bytes
    user_id: int
    now: int


class EndSession(_Command, frozen=True):
    """Outcome: None. ``expires_at`` (ms) is when the session would have ended by itself. ``user_id`` is the session's
    user; it is 0 in a command that an earlier version has queued.
    """

    session: str
    expires_at: int
    user_id: int = 0


class EndSessions(_Command, frozen=True):
    """Ends all sessions of a user that were begun before. Outcome: None. ``era`` was never used before."""

    user_id: int
    era: str


class RenameUser(_Command, frozen=True):
    """Outcome: None. Earlier messages have the new name too."""

    user_id: int
    name: str


class SetPassword(_Command, frozen=True):
    """Sets the password. All sessions of the user end, and links that set a password become invalid. Outcome: None.
    ``era``: see EndSessions. Refused with Unauthenticated when ``asked_in``, the era of the session that asks for it,
    is no longer the user's: the change that ended that session came first.
    """

    user_id: int
    password_hash: str
    era: str
    asked_in: str | None = None


class DeleteUser(_Command, frozen=True):
    """Deletes the account, with its memberships and sessions. Its messages stay under another name, or are erased a
    little later (``erase``). Outcome: None. Refused with Invalid while the user owns applications. ``era``: see
    EndSessions, ``asked_in``: SetPassword.
    """

    user_id: int
    era: str
    erase: bool
    asked_in: str | None = None


class EndErasure(_Command, frozen=True):
    """The messages of these deleted users are erased. Outcome: None."""

    user_ids: tuple[int, ...]


class AddApplication(_Command, frozen=True):
    """Outcome: None."""

    token: str
    name: str
    owner_id: int
    created_at: int


class RenameApplication(_Command, frozen=True):
    """Outcome: None."""

    token: str
    name: str
    by: int | None = None


class DeleteApplication(_Command, frozen=True):
    """Outcome: None; NotFound when there is none. Its content is erased a little later, see Store.erase."""

    token: str
    by: int | None = None


class PutMember(_Command, frozen=True):
    """Adds a member or changes a role. Outcome: None. Never touches the owner (Forbidden)."""

    token: str
    user_id: int
    role: Role
    by: int | None = None


class RemoveMember(_Command, frozen=True):
    """Outcome: None. Never touches the owner (Forbidden); NotFound when the user is not a member."""

    token: str
    user_id: int
    by: int | None = None


class HandOver(_Command, frozen=True):
    """Makes a member the owner, and the owner an admin. Outcome: None. Refused with Forbidden when ``owner_id`` is not
    the owner, and with NotFound when the other is no member.
    """

    token: str
    owner_id: int
    new_owner_id: int


class AddChat(_Command, frozen=True):
    """Outcome: the chat's number, one above the last."""

    token: str
    title: str | None
    created_at: int


class RenameChat(_Command, frozen=True):
    """Outcome: None."""

    chat: ChatKey
    title: str | None


class DeleteChat(_Command, frozen=True):
    """Outcome: None; NotFound when there is none. Its number stays taken, and its content is erased a little later, see
    Store.erase.
    """

    chat: ChatKey
    by: int | None = None


class PostMessage(_Command, frozen=True):
    """Outcome: the message's number, as Repeated if an earlier try with the same key has posted it. ``number`` is
    reserved for this command alone; or it is 0, and the command gets the number after the highest that the chat has
    ever given, when it is applied. Not every store gives numbers.

    ``key`` and ``body_hash`` (SHA-256 of the body as sent) are set when the client gave an Idempotency-Key. ``trace``
    is a W3C traceparent, empty if nothing is traced.
    """

    chat: ChatKey
    number: int
    sender_id: int
    sender_ref: str
    sender_name: str
    body: str
    created_at: int
    key: str | None = None
    body_hash: bytes | None = None
    trace: str = ""


class Repeated(int):
    """The number of a message that an earlier try has posted. The message may have been edited or deleted since."""


class EditMessage(_Command, frozen=True):
    """Outcome: None. Refused with NotFound when the message is not there or is another's."""

    chat: ChatKey
    number: int
    editor_id: int
    body: str
    edited_at: int


class DeleteMessage(_Command, frozen=True):
    """Outcome: None. ``any_sender`` is set for those who may delete others' messages."""

    chat: ChatKey
    number: int
    deleter_id: int
    any_sender: bool


MessageCommand: TypeAlias = PostMessage | EditMessage | DeleteMessage
DirectoryCommand: TypeAlias = (
    AddUser
    | AddInvitedUser
    | AddOperator
    | SetOperator
    | AddLink
    | ResetPassword
    | AddInvite
    | RemoveInvite
    | AcceptInvite
    | EndSession
    | EndSessions
    | RenameUser
    | SetPassword
    | DeleteUser
    | EndErasure
    | AddApplication
    | RenameApplication
    | DeleteApplication
    | PutMember
    | RemoveMember
    | HandOver
    | AddChat
    | RenameChat
    | DeleteChat
)
Command: TypeAlias = MessageCommand | DirectoryCommand
Outcome: TypeAlias = object | ChatError
DELETE_CHATS = frozenset((DeleteChat, DeleteApplication))
