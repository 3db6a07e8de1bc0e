"""The data model: users, applications, members, chats, messages. Times are milliseconds since 1970, UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec


class Role(StrEnum):
    """The role of a member in an application. Exactly one member is the owner."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"

    @property
    def manages(self) -> bool:
        """Whether this role may rename the application, manage members and delete others' messages."""
        return self is not Role.MEMBER

    def covers(self, other: Role) -> bool:
        """Whether this role has all rights of ``other``, which is never the owner's: an invite to it would add none."""
        return self.manages or other is Role.MEMBER


DELETED_USER = "Deleted user"  # the name under which a deleted account's messages stay


class User(msgspec.Struct, frozen=True):
    """A user's account. ``id`` is internal to the store and never leaves the service. ``ref`` is the public id, stable
    and unguessable, which tokens also carry. ``era`` is in all tokens of the user; a new era ends all sessions.
    """

    id: int
    ref: str
    email: str
    name: str
    created_at: int
    era: str = ""


class Application(msgspec.Struct, frozen=True):
    token: str
    name: str
    chats_count: int


class Member(msgspec.Struct, frozen=True):
    """A member of an application. ``ref``: see User. ``email`` is None when the reader may not see it."""

    ref: str
    email: str | None
    name: str
    role: Role


_LONGEST_TOKEN = 64
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")


def is_token(text: str) -> bool:
    """Whether the text has the form of an application's token. Any other text must not reach a database, which might
    take it for an existing token: some databases ignore trailing blanks when they compare.
    """
    return len(text) <= _LONGEST_TOKEN and _looks_so(text)


@lru_cache(10_000)
def _looks_so(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


class ChatKey(NamedTuple):
    """The key of a chat: its application's token and its number there."""

    token: str
    number: int


class Chat(msgspec.Struct, frozen=True):
    """A chat. ``last_number`` is the highest message number ever stored, even if that message was deleted."""

    number: int
    title: str | None
    messages_count: int
    last_number: int


class Purpose(StrEnum):
    """What a link does: it creates an operator's account, or sets a new password."""

    OPERATOR = "operator"
    RESET = "reset"


class Invite(msgspec.Struct, frozen=True):
    """An invite to an application. ``ref`` is its id in the API; only people who were given the code know it. ``used``
    of ``uses`` are used up.
    """

    ref: str
    role: Role
    uses: int
    used: int
    created_at: int
    expires_at: int


class Joined(NamedTuple):
    """The application that a user has joined by an invite, and the user's role there."""

    token: str
    role: Role


class Message(msgspec.Struct, frozen=True):
    """A message. ``sender_id`` and ``sender_ref``: see User. A name does not identify a user: several may have it."""

    number: int
    sender_id: int
    sender_ref: str
    sender_name: str
    body: str
    created_at: int
    edited_at: int | None = None


class Page(NamedTuple):
    """Some messages of a chat, newest first, encoded as the API sends them.

    ``oldest`` and ``newest`` are the numbers at its ends (None when empty); ``more`` says whether older ones follow;
    ``lag``: see MessagesRead. ``truncated``: a search that could not look at all that there is.
    """

    body: bytes
    oldest: int | None
    newest: int | None
    more: bool
    lag: bool = False
    truncated: bool = False


class KeptPage(msgspec.Struct):
    """A page of the newest ``limit`` messages that memory keeps. ``answer`` is what is sent for it, made by the first
    who sends it and kept with it.
    """

    limit: int
    page: Page
    answer: Any = None


class MessagesRead(NamedTuple):
    """The messages that a read found, newest first unless the read says otherwise. With ``lag``, messages that were
    acknowledged and are not stored yet may be missing: the memory that held them was just lost.

    ``open`` lists, ascending, the numbers in the range that were given out and whose message may still come. A number
    that is in neither never comes, unless the answer lags. Only reads above a number, and reads by numbers, fill it.
    """

    messages: list[Message]
    lag: bool = False
    open: Sequence[int] = ()


def timestamp(milliseconds: int) -> str:
    """The moment as RFC 3339 in UTC, to the millisecond: ``2026-11-24T08:00:00.123Z``."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
