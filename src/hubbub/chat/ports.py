"""The doors between the services and the outside. Each port has one suite in tests/ports that every adapter passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from hubbub.chat.commands import Command, Outcome
from hubbub.chat.model import Application, Chat, ChatKey, Member, Message, Page, Role, User
from hubbub.chat.search import Query
from hubbub.chat.ticket import Ticket


class Queue(Protocol):
    """Takes commands in order and makes them durable."""

    def accept(self, command: Command) -> Ticket:
        """Take the command, or refuse it at once. Its ticket is resolved when it can no longer be lost.

        Commands are applied in the order of acceptance.

        Raises:
            Unavailable: the queue is full, or closed; nothing was taken.
        """

    @property
    def depth(self) -> int:
        """Commands accepted whose outcome is not known yet."""

    @property
    def fault(self) -> str | None:
        """Why the latest batch could not be made durable; None when it could."""


class Store(Protocol):
    """The truth. Reads see every command whose ticket was resolved before the read began.

    Every read may raise Unavailable when the store can't be reached.
    """

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        """Apply the commands in order in one transaction, on disk on return. Blocks: not for the loop.

        Returns:
            One outcome for each command, in order.

        Raises:
            Unavailable: nothing of the batch was applied.
        """

    def count_messages(self) -> None:
        """Fold what was posted since the last call into the stored counts, so that reading a count stays cheap."""

    async def user_by_ref(self, ref: str) -> User | None: ...
    async def user_by_email(self, email: str) -> tuple[User, str] | None:
        """The user and the password hash."""

    async def session_ended(self, session: str) -> bool: ...

    async def application(self, token: str) -> Application | None: ...
    async def applications_of(self, user_id: int, *, offset: int, limit: int) -> list[Application]:
        """The applications the user is a member of, newest first."""

    async def role(self, token: str, user_id: int) -> Role | None: ...
    async def members(self, token: str) -> list[Member]: ...

    async def chat(self, key: ChatKey) -> Chat | None: ...
    async def chats(self, token: str, *, offset: int, limit: int) -> list[Chat]:
        """The application's chats, newest first."""

    async def message(self, key: ChatKey, number: int) -> Message | None: ...
    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> list[Message]:
        """Up to ``limit`` messages, newest first: the newest, or those next below ``before`` or above ``after``."""

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> list[Message]:
        """Those of up to a thousand messages that there are, in no order."""

    async def posted(self, key: ChatKey, sender_id: int, idempotency_key: str) -> tuple[int, bytes] | None:
        """The number and body hash of the message the sender posted with this key, also if it is deleted since."""


class Intake(Protocol):
    """The way in for commands. What a ticket says has been done is durable, and is in every read that starts later."""

    def accept(self, command: Command) -> Ticket:
        """Carry out the command.

        Raises:
            Unavailable: nothing was done. The ticket may say so too, later.
        """

    async def post(
        self, user: User, key: ChatKey, body: str, idempotency_key: str | None, seen: object = None, trace: str = ""
    ) -> Ticket:
        """Send a message to a chat that exists. The ticket's outcome is its number. ``trace`` goes with the command.

        With an Idempotency-Key, a retry gets the first try's outcome and adds nothing.

        Raises:
            KeyReused: the key was used here by this sender with another body. The ticket may say so too, later.
            Unavailable: nothing was done.
        """


class View(Protocol):
    """Reads of what changes by the second, from hot data where there is some: every acknowledged command is seen.

    Losing hot data loses nothing: whatever is missing is read from the store again. The parameters and the values of
    ``message`` and ``messages`` are those of Store. ``seen`` is what the request's Entry brought along.
    """

    async def role(self, token: str, user_id: int, seen: object = None) -> Role | None: ...

    async def exists(self, key: ChatKey) -> bool:
        """Whether there is such a chat."""

    async def newest(self, key: ChatKey, limit: int, seen: object = None) -> Page:
        """The newest messages of a chat that exists."""

    async def message(self, key: ChatKey, number: int) -> Message | None: ...
    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> list[Message]: ...

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> list[Message]: ...

    async def chats(self, token: str, limit: int, seen: object = None) -> bytes:
        """The application's newest chats, encoded as the API sends them."""


class Document(NamedTuple):
    """A message as it is now, on its way into a search index: its text, None when it is gone, and when that was written
    (in milliseconds; 0 where nothing can overtake it on its way).
    """

    chat: ChatKey
    number: int
    body: str | None
    written_at: int = 0


class SearchIndex(Protocol):
    """Knows which messages may match a query. May lag behind the store, and may name messages that do not match."""

    async def candidates(self, chat: ChatKey, query: Query, *, typos: bool) -> list[int]:
        """Numbers of the newest messages that may match, newest first, up to search.CANDIDATES of them: all that were
        indexed and match, and perhaps others. With ``typos``, also those that match with typos, up to
        search.TYPO_CANDIDATES in all.

        Raises:
            Unavailable: the index can't be asked now.
        """


class Wants(NamedTuple):
    """What a request is going to ask for: an application (a chat number of 0), so many of a chat's newest messages, or
    a number for a message. A gate that has to travel for its answer may bring it along.
    """

    chat: ChatKey
    newest: int = 0
    number: bool = False


class Entry(NamedTuple):
    """``mark`` changes whenever a session of the user is ended; it is empty when that can't be known now."""

    mark: str
    seen: object = None


class Gate(Protocol):
    """Stands before every request of a user, and is the same for all processes that serve."""

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        """Count one request of the user, who entered with ``mark`` before.

        Raises:
            RateLimited: the user has sent too many.
        """

    async def sessions_changed(self, user_id: int) -> None:
        """A session of the user is being ended, or has been: the mark changes, for every process.

        Raises:
            Unavailable: it can't be changed now.
        """


class Logins(Protocol):
    """Counts what comes without credentials: from one address, whatever it is; of logins those that failed, for one
    account from one address, and from one address whatever the accounts.
    """

    async def came(self, address: str) -> None:
        """Count one request that has to do with passwords.

        Raises:
            RateLimited: the address has sent too many.
        """

    def attempt(self, address: str, email: str) -> AbstractAsyncContextManager[None]:
        """Around one attempt, which fails by raising Unauthenticated.

        Raises:
            RateLimited: too many have failed; nothing was tried.
        """


class Passwords(Protocol):
    """Slow on purpose, and off the event loop."""

    async def hash(self, password: str) -> str:
        """The password's salted hash, in PHC string format.

        Raises:
            Unavailable: too many are waiting already.
        """

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether they match. Without a hash (an unknown user) the answer is no, and takes as long.

        Raises:
            Unavailable: too many are waiting already.
        """
