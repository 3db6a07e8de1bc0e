"""The rows that a move takes from one mode's database to the other's: each as the cluster's table has it, with the
fields named as its columns. See hubbub.move.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class User(NamedTuple):
    id: int
    ref: str
    email: str
    name: str
    password_hash: str
    created_at: int
    era: str
    deleted: int
    operator: int


class EndedSession(NamedTuple):
    session: str
    expires_at: int


class Application(NamedTuple):
    """``chats_count`` is the number of the last chat; so many of them were deleted (``chats_deleted``)."""

    token: str
    name: str
    created_at: int
    chats_count: int
    chats_deleted: int
    deleted: int


class Member(NamedTuple):
    """``app_created_at`` is the application's ``created_at``."""

    token: str
    user_id: int
    role: str
    app_created_at: int


class FormerMember(NamedTuple):
    token: str
    user_id: int


class Link(NamedTuple):
    purpose: str
    email: str
    hash: bytes
    expires_at: int


class Invite(NamedTuple):
    token: str
    ref: str
    hash: bytes
    role: str
    uses: int
    used: int
    created_at: int
    expires_at: int
    created_by: int


class Chat(NamedTuple):
    """``last_number``: no deleted message has a higher one."""

    token: str
    number: int
    title: str | None
    created_at: int
    counted: int
    counted_to: int
    last_number: int
    deleted: int


class Message(NamedTuple):
    token: str
    chat: int
    number: int
    sender_id: int
    sender_name: str
    body: str
    created_at: int
    edited_at: int | None


class IdempotencyKey(NamedTuple):
    token: str
    chat: int
    sender_id: int
    key: str
    number: int
    body_hash: bytes


class Erasure(NamedTuple):
    """What was deleted and has rows left. ``at`` is in seconds since 1970."""

    kind: str
    token: str
    chat: int
    user_id: int
    at: int


Row: TypeAlias = (
    User
    | EndedSession
    | Application
    | Member
    | FormerMember
    | Link
    | Invite
    | Chat
    | Message
    | IdempotencyKey
    | Erasure
)

# In both modes the table of a kind has the same name; the embedded mode has no former_members.
TABLES: dict[type[Row], str] = {
    User: "users",
    EndedSession: "ended_sessions",
    Application: "applications",
    Member: "members",
    FormerMember: "former_members",
    Link: "links",
    Invite: "invites",
    Chat: "chats",
    Message: "messages",
    IdempotencyKey: "idempotency_keys",
    Erasure: "erasures",
}
