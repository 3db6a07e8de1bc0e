"""What a client can ask to be changed. A command that was accepted is on disk, or will be, exactly once.

Message commands travel through queues, and may be read by another version than wrote them: a field may be added at the
end, with a default, and none may be changed or go.

``Store.apply`` answers each command with its outcome: the value named in the command's docstring, or the ChatError
that refuses it. A refused command has changed nothing.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

from hubbub.chat.errors import ChatError
from hubbub.chat.model import ChatKey, Message, Role


class AddUser(msgspec.Struct, frozen=True):
    """Outcome: the User. Refused with Invalid when the email is taken."""

    ref: str
    email: str
    name: str
    password_hash: str
    created_at: int


class EndSession(msgspec.Struct, frozen=True):
    """Outcome: None. ``expires_at`` is when the session would have ended by itself and may be forgotten."""

    session: str
    expires_at: int


class AddApplication(msgspec.Struct, frozen=True):
    """Outcome: None."""

    token: str
    name: str
    owner_id: int
    created_at: int


class RenameApplication(msgspec.Struct, frozen=True):
    """Outcome: None."""

    token: str
    name: str


class PutMember(msgspec.Struct, frozen=True):
    """Adds a member or changes a role. Outcome: None. Never touches the owner (Forbidden)."""

    token: str
    user_id: int
    role: Role


class RemoveMember(msgspec.Struct, frozen=True):
    """Outcome: None. Never touches the owner (Forbidden); NotFound when the user is not a member."""

    token: str
    user_id: int


class AddChat(msgspec.Struct, frozen=True):
    """Outcome: the chat's number, one above the last."""

    token: str
    title: str | None
    created_at: int


class RenameChat(msgspec.Struct, frozen=True):
    """Outcome: None."""

    chat: ChatKey
    title: str | None


class PostMessage(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Outcome: the message's number. ``number`` was reserved for this command alone.

    ``key`` and ``body_hash`` (SHA-256 of the body as sent) are set when the client gave an Idempotency-Key. ``epoch``
    is that of the chat's numbering, 0 where numbers have one keeper who never forgets. Refused with Superseded when
    the chat's numbering has been opened anew since. ``trace`` is a W3C traceparent, empty where nothing is traced.
    """

    chat: ChatKey
    number: int
    sender_id: int
    sender_name: str
    body: str
    created_at: int
    key: str | None = None
    body_hash: bytes | None = None
    epoch: int = 0
    trace: str = ""


class EditMessage(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Outcome: None. Refused with NotFound when the message is not there or is another's.

    ``op`` names the change where it is shown before it is stored; empty where it is not.
    """

    chat: ChatKey
    number: int
    editor_id: int
    body: str
    edited_at: int
    op: str = ""


class DeleteMessage(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Outcome: None. ``any_sender`` is set for those who may delete others' messages. ``op``: see EditMessage."""

    chat: ChatKey
    number: int
    deleter_id: int
    any_sender: bool
    op: str = ""


class OpenChat(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Opens the chat's numbering anew, behind all that was accepted before. Outcome: Opened.

    ``candidate`` names this attempt where it was announced, see caches.redis.
    """

    chat: ChatKey
    candidate: str


class Opened(NamedTuple):
    """``last_number`` is the highest ever given; ``newest`` are up to 101 messages, newest first."""

    epoch: int
    last_number: int
    newest: list[Message]


MessageCommand: TypeAlias = PostMessage | EditMessage | DeleteMessage | OpenChat
DirectoryCommand: TypeAlias = (
    AddUser | EndSession | AddApplication | RenameApplication | PutMember | RemoveMember | AddChat | RenameChat
)
Command: TypeAlias = MessageCommand | DirectoryCommand
Outcome: TypeAlias = object | ChatError


class Delivery(msgspec.Struct, frozen=True, array_like=True):
    """Some commands as one publisher sent them together. ``sequence`` rises by one with each of its deliveries."""

    publisher: str
    sequence: int
    commands: list[MessageCommand]


class Failed(NamedTuple):
    """The outcome of a command that the store chokes on."""

    reason: str


class Position(NamedTuple):
    """How far a shard's queue has been applied to the store: a copy that is behind it lacks something."""

    shard: int
    transactions: int


class Applied(NamedTuple):
    """The outcomes of each delivery's commands, None for a delivery that had been applied before."""

    position: Position
    outcomes: list[list[Outcome] | None]
