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


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request. A field that it does not know is a 422, see http.fields: nothing is dropped silently."""


class Registration(Request):
    name: Name
    email: Email
    password: Password
    password_confirmation: str | None = None
    invite: Code | None = None


class OperatorAccount(Request):
    """The account that a set-up link makes; ``code`` is what the link has behind its #."""

    code: Code
    name: Name
    email: Email
    password: Password


class Credentials(Request):
    # Not bounded like a new password: a wrong one is wrong, whatever its length.
    email: Annotated[str, msgspec.Meta(max_length=1000)]
    password: Annotated[str, msgspec.Meta(max_length=1000)]


class UserName(Request):
    name: Name


class NewPassword(Request):
    current_password: Annotated[str, msgspec.Meta(max_length=1000)] = msgspec.field(name="currentPassword")
    password: Password
    password_confirmation: str | None = None


class Leaving(Request, rename="camel"):
    current_password: Annotated[str, msgspec.Meta(max_length=1000)]


class WhatOfMessages(msgspec.Struct):
    messages: Literal["keep", "erase"] = "keep"


class LostPassword(Request):
    email: Email


class PasswordByLink(Request):
    """``code`` is what the mailed link has behind its #."""

    code: Code
    password: Password


class AcceptedInvite(Request):
    """``code`` is what an invite's link has behind its #: in the body, for a path is in the logs of proxies."""

    code: Code


class NewApplication(Request):
    name: Name


class NamedApplication(Request):
    token: str
    name: Name


class NewMember(Request):
    email: Email
    role: Literal["admin", "member"]


class FormerMember(Request):
    email: Email


class NamedMember(msgspec.Struct):
    """For a client that can't send a body with DELETE."""

    email: Email | None = None


class NewOwner(Request):
    email: Email


class NewInvite(Request, rename="camel"):
    """``expiresIn`` is in seconds: a minute to 30 days."""

    role: Literal["admin", "member"]
    expires_in: Annotated[int, msgspec.Meta(ge=60, le=30 * 86400)] = 7 * 86400
    uses: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class NewChat(Request):
    title: Name | None = None


class Title(Request):
    title: Name | None


class NewMessage(Request):
    body: Body


class NumberedMessage(Request, rename="camel"):
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
    id: str
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


class MemberItem(msgspec.Struct, omit_defaults=True):
    """``email`` is for the application's owner and its admins alone."""

    id: str
    name: str
    role: Role
    email: str | None = None


class InviteItem(msgspec.Struct, rename="camel"):
    """``used`` of ``uses`` are used up."""

    id: str
    role: Role
    uses: int
    used: int
    created_at: str
    expires_at: str


class AddedInvite(msgspec.Struct, rename="camel"):
    """Anyone with the ``link``, or the ``code`` in it, may join; neither is returned again."""

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


class LetterNumber(Request):
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
    """``at`` is in seconds on the machine's clock, ``bounds`` are seconds; ``figures`` are named as in /metrics."""

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
