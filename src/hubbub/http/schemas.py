"""What requests and responses look like. Validation and the OpenAPI document are both made from these."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hubbub.chat.model import Role

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Email = Annotated[str, msgspec.Meta(min_length=3, max_length=254)]
Password = Annotated[str, msgspec.Meta(min_length=6, max_length=128)]
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Body = Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
PageNumber = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=100)]


class Registration(msgspec.Struct):
    name: Name
    email: Email
    password: Password
    password_confirmation: str | None = None
    invite: Code | None = None


class OperatorAccount(msgspec.Struct):
    """The account that a set-up link makes; ``code`` is what the link has behind its #."""

    code: Code
    name: Name
    email: Email
    password: Password


class Credentials(msgspec.Struct):
    # Not bounded like a new password: a wrong one is wrong, whatever its length.
    email: Annotated[str, msgspec.Meta(max_length=1000)]
    password: Annotated[str, msgspec.Meta(max_length=1000)]


class LostPassword(msgspec.Struct):
    email: Email


class NewPassword(msgspec.Struct):
    """``code`` is what the mailed link has behind its #."""

    code: Code
    password: Password


class NewApplication(msgspec.Struct):
    name: Name


class NamedApplication(msgspec.Struct):
    token: str
    name: Name


class NewMember(msgspec.Struct):
    email: Email
    role: Literal["admin", "member"]


class FormerMember(msgspec.Struct):
    email: Email


class NewInvite(msgspec.Struct, rename="camel"):
    """``expiresIn`` is in seconds: a minute to 30 days."""

    role: Literal["admin", "member"]
    expires_in: Annotated[int, msgspec.Meta(ge=60, le=30 * 86400)] = 7 * 86400
    uses: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class NewChat(msgspec.Struct):
    title: Name | None = None


class Title(msgspec.Struct):
    title: Name | None


class NewMessage(msgspec.Struct):
    body: Body


class NumberedMessage(msgspec.Struct, rename="camel"):
    message_number: Number
    body: Body


class Paging(msgspec.Struct):
    page: PageNumber = 1
    limit: Limit = 10

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


class MemberPaging(msgspec.Struct):
    page: PageNumber = 1
    limit: Limit = 100

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


class MessagePaging(msgspec.Struct):
    page: PageNumber | None = None
    limit: Limit = 10
    before: Number | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None


class Search(msgspec.Struct):
    q: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    page: PageNumber = 1
    limit: Limit = 10

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


class Streaming(msgspec.Struct):
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None


class Done(msgspec.Struct):
    message: str


class NewToken(msgspec.Struct, rename="camel"):
    token: str
    expires_at: str


class Refreshed(msgspec.Struct, rename="camel", omit_defaults=True):
    """``token`` and ``expiresAt`` for callers that came with a Bearer token."""

    message: str
    token: str | None = None
    expires_at: str | None = None


class Me(msgspec.Struct, rename="camel", omit_defaults=True):
    email: str
    name: str
    created_at: str
    operator: bool = False


class MeReply(msgspec.Struct):
    user: Me


class ApplicationToken(msgspec.Struct):
    token: str


class ApplicationItem(msgspec.Struct, rename="camel"):
    token: str
    name: str
    chats_count: int


class MemberItem(msgspec.Struct):
    email: str
    name: str
    role: Role


class InviteItem(msgspec.Struct, rename="camel"):
    """``used`` of ``uses`` are used up."""

    id: str
    role: Role
    uses: int
    used: int
    created_at: str
    expires_at: str


class AddedInvite(msgspec.Struct, rename="camel"):
    """Whoever has the ``link``, or the ``code`` in it, may join; neither is told again."""

    id: str
    link: str
    code: str
    role: Role
    uses: int
    expires_at: str


class JoinedApplication(msgspec.Struct):
    """The role is the one that the caller has from now on."""

    token: str
    role: Role


class ChatNumber(msgspec.Struct, rename="camel"):
    chat_number: int


class MessageNumber(msgspec.Struct, rename="camel"):
    message_number: int


class LetterNumber(msgspec.Struct):
    number: Number


class Letter(msgspec.Struct):
    """A command that could not be stored; ``number`` is its place among them."""

    number: int
    at: str
    what: str
    reason: str


class Requests(msgspec.Struct):
    """How many requests fell into each bucket of duration, see ``bounds``; the last has no bound."""

    route: str
    status: str
    counts: list[float]


class OperatorState(msgspec.Struct):
    """``at`` is in seconds on this process's clock, ``bounds`` are seconds; ``figures`` are named as in /metrics."""

    at: float
    bounds: list[float]
    requests: list[Requests]
    figures: dict[str, float]
    errors: list[str]


class Part(msgspec.Struct, omit_defaults=True):
    status: Literal["ok", "failing"]
    detail: str = ""


class Health(msgspec.Struct, omit_defaults=True):
    status: Literal["ok", "failing"]
    parts: dict[str, Part] = {}
