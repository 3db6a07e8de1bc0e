"""The nouns: users, applications, members, chats, messages. Times are milliseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import msgspec


class Role(StrEnum):
    """What a member of an application is. Exactly one member is the owner, and stays it."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"

    @property
    def manages(self) -> bool:
        """Whether this role may rename the application, manage members and delete others' messages."""
        return self is not Role.MEMBER


class User(msgspec.Struct, frozen=True):
    """``id`` is the store's own and never leaves the service; ``ref`` is what a token carries instead."""

    id: int
    ref: str
    email: str
    name: str
    created_at: int


class Application(msgspec.Struct, frozen=True):
    token: str
    name: str
    chats_count: int


class Member(msgspec.Struct, frozen=True):
    email: str
    name: str
    role: Role


class ChatKey(NamedTuple):
    """A chat is known by its application's token and its number there."""

    token: str
    number: int


class Chat(msgspec.Struct, frozen=True):
    """``last_number`` is the highest message number ever stored, also if that message is deleted."""

    number: int
    title: str | None
    messages_count: int
    last_number: int


class Message(msgspec.Struct, frozen=True):
    number: int
    sender_id: int
    sender_name: str
    body: str
    created_at: int
    edited_at: int | None = None


class Page(NamedTuple):
    """Some messages of a chat, newest first, encoded as the API sends them.

    ``oldest`` and ``newest`` are the numbers at its ends (None when empty); ``more`` says whether older ones follow.
    """

    body: bytes
    oldest: int | None
    newest: int | None
    more: bool


def timestamp(milliseconds: int) -> str:
    """The moment as RFC 3339 in UTC, to the millisecond: ``2026-11-24T08:00:00.123Z``."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
