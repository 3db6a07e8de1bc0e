"""Fakes of the services' ports: the test sets what they return, and they record what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from hubbub.chat.caller import Caller
from hubbub.chat.commands import Command
from hubbub.chat.encoding import encode_chats, encode_page
from hubbub.chat.errors import ChatError
from hubbub.chat.large_pages import LargePages
from hubbub.chat.model import Application, Chat, ChatKey, Member, Message, MessagesRead, Page, Role, User
from hubbub.chat.ports import Candidates, Ports
from hubbub.chat.quotas import Hourly, Quotas
from hubbub.chat.search import CANDIDATES, Query
from hubbub.chat.ticket import Ticket
from hubbub.http.limits import MemoryCounts

TOKEN = "token"
CHAT = ChatKey(TOKEN, 1)
HOURLY = Hourly(applications=3, chats=5, members=4, invites=4)
NOW = 1000


def user(number: int) -> User:
    return User(number, f"ref{number}", f"user{number}@example.com", f"User {number}", 1)


OWNER, ADMIN, MEMBER, STRANGER = (Caller(user(number)) for number in (1, 2, 3, 4))
ROLES = {1: Role.OWNER, 2: Role.ADMIN, 3: Role.MEMBER}


class FakeStore:
    async def application(self, token: str) -> Application | None:
        return Application(token, "Ours", 1) if token == TOKEN else None

    async def members(self, token: str, *, offset: int, limit: int) -> list[Member]:
        members = [
            Member(user(number).ref, user(number).email, user(number).name, role) for number, role in ROLES.items()
        ]
        return members[offset : offset + limit]

    async def member(self, token: str, email: str) -> int | None:
        return next((number for number in ROLES if token == TOKEN and user(number).email == email), None)

    async def user_by_email(self, email: str) -> tuple[User, str] | None:
        found = [user(number) for number in range(1, 6) if user(number).email == email]
        return (found[0], "hash") if found else None

    async def chat(self, key: ChatKey) -> Chat | None:
        return Chat(1, "General", 5, 5) if key == CHAT else None

    async def chats(self, token: str, *, offset: int, limit: int) -> list[Chat]:
        return [Chat(number, None, 0, 0) for number in range(30 - offset, max(0, 30 - offset - limit), -1)]


class FakeView:
    """A view of messages 1 to 5 of a chat, from the member. Messages are read with ``lag``; ``asked`` lists calls."""

    def __init__(self) -> None:
        self.large_pages = LargePages()
        self.lag = False
        self.sender = 3
        self.texts = {number: f"message {number}" for number in range(1, 6)}
        self.asked: list[str] = []

    def _messages(self) -> list[Message]:
        ref = user(self.sender).ref
        texts = sorted(self.texts.items(), reverse=True)
        return [Message(number, self.sender, ref, "Somebody", text, number) for number, text in texts]

    async def role(self, caller: Caller, token: str) -> Role | None:
        self.asked.append("role")
        return ROLES.get(caller.user.id) if token == TOKEN else None

    async def exists(self, caller: Caller, key: ChatKey) -> bool:
        self.asked.append("exists")
        return key == CHAT

    async def newest(self, caller: Caller, key: ChatKey, limit: int) -> Page:
        self.asked.append("newest")
        return encode_page(self._messages(), limit)._replace(lag=self.lag)

    async def message(self, key: ChatKey, number: int) -> MessagesRead:
        return MessagesRead([each for each in self._messages() if each.number == number], self.lag)

    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> MessagesRead:
        self.asked.append("messages")
        if after is not None:
            return MessagesRead([each for each in self._messages() if each.number > after][-limit:], self.lag)
        found = [each for each in self._messages() if before is None or each.number < before]
        return MessagesRead(found[offset : offset + limit], self.lag)

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> MessagesRead:
        return MessagesRead([each for each in self._messages() if each.number in numbers], self.lag)

    async def chats(self, caller: Caller, token: str, limit: int) -> bytes:
        self.asked.append("chats")
        return encode_chats([Chat(30, "newest", 0, 0)])


class FakeIntake:
    """An intake that records ``accepted`` commands, and the sender's id, chat, body and key of ``posts``.

    Commands get ``outcome``. Posts get the number 6, or ``outcome`` if that is an error.
    """

    def __init__(self) -> None:
        self.accepted: list[Command] = []
        self.posts: list[tuple[int, ChatKey, str, str | None]] = []
        self.outcome: Any = None

    def accept(self, command: Command) -> Ticket:
        self.accepted.append(command)
        ticket = Ticket(command)
        ticket.resolve(self.outcome)
        return ticket

    async def post(self, caller: Caller, key: ChatKey, body: str, idempotency_key: str | None) -> Ticket:
        self.posts.append((caller.user.id, key, body, idempotency_key))
        if isinstance(self.outcome, ChatError):
            raise self.outcome
        ticket = Ticket(cast(Command, None))
        ticket.resolve(6)
        return ticket


class FakeIndex:
    """An index that returns every message of the chat, and one that does not exist."""

    async def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Candidates:
        return Candidates([77, 5, 4, 3, 2, 1])


class Fakes:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.view = FakeView()
        self.intake = FakeIntake()
        self.index = FakeIndex()
        self.quotas = Quotas(MemoryCounts(), HOURLY)
        self.ports = Ports(cast(Any, self.store), self.intake, self.view, self.index, self.quotas, lambda: NOW)
