"""The ports between the services and the outside. Each port has one suite in tests/ports that every adapter passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from hubbub.chat.caller import Caller
from hubbub.chat.commands import Command, Outcome
from hubbub.chat.deep_pages import DeepPages
from hubbub.chat.large_pages import LargePages
from hubbub.chat.limits import Limit
from hubbub.chat.model import (
    Application,
    Chat,
    ChatKey,
    Invite,
    KeptPage,
    Member,
    Message,
    MessagesRead,
    Page,
    Purpose,
    Role,
    User,
)
from hubbub.chat.search import CANDIDATES, Query
from hubbub.chat.ticket import Ticket

if TYPE_CHECKING:
    from hubbub.chat.quotas import Quotas


class Queue(Protocol):
    """Takes commands in order and makes them durable."""

    def accept(self, command: Command) -> Ticket:
        """Take the command, or refuse it at once. Its ticket is resolved when it can no longer be lost.

        Commands are applied in the order of acceptance.

        Raises:
            Unavailable: the queue is full, or closed; nothing was taken.
            RateLimited: the user has used up what one may have of it; nothing was taken.
        """

    @property
    def depth(self) -> int:
        """Commands accepted whose outcome is not known yet."""

    @property
    def fault(self) -> str | None:
        """Why the latest batch could not be made durable; None when it could."""


# Of a message among all that there are, in an order of the store's own; empty for the beginning.
Place: TypeAlias = tuple[str | int, ...]


class Sent(NamedTuple):
    """A message, and who sent it."""

    chat: ChatKey
    number: int
    sender_id: int


class Store(Protocol):
    """The truth. Reads see every command that was applied before the read began.

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
        """Add the messages posted since the last call to the stored counts, so that reading a count stays cheap."""

    async def users_to_erase(self, who: str) -> list[int]:
        """The deleted users whose messages have to be erased, without those that another process than ``who`` asked for
        in the last minute. A user is in the result only when the user's earlier requests have ended.
        """

    async def sent_by(self, user_ids: Sequence[int], after: Place) -> tuple[Place | None, list[Sent]]:
        """Looks through some thousand messages after the position ``after``, in order.

        Returns:
            The position to continue after, None at the end, and these users' messages among those looked through.
        """

    async def user_by_ref(self, ref: str) -> User | None: ...
    async def user_by_email(self, email: str) -> tuple[User, str] | None:
        """The user and the password hash."""

    async def is_operator(self, user_id: int) -> bool:
        """Whether the account is marked as an operator."""

    async def operators(self) -> list[User]:
        """The users whose accounts are marked as operators."""

    async def link(self, purpose: Purpose, hash: bytes, now: int) -> str | None:
        """The email that the link is for, empty for any; None when there is none, or it has expired."""

    async def invite_token(self, hash: bytes) -> str | None:
        """The token of the invite's application, even if the invite is used up or expired."""

    async def invites(self, token: str, now: int, *, offset: int, limit: int) -> list[Invite]:
        """The application's invites that have not expired, newest first."""

    def forget_links(self, now: int) -> None:
        """Drop the links and invites that have expired before ``now`` (ms). Blocks."""

    async def session_lives(self, user_id: int, era: str, session: str) -> bool:
        """Whether the user's session is valid: neither it nor all sessions of its era were ended."""

    def forget_sessions(self, now: int) -> None:
        """Drop the records of ended sessions that would have expired long before ``now`` (ms). Blocks."""

    async def application(self, token: str) -> Application | None: ...
    async def applications_of(self, user_id: int, *, offset: int, limit: int) -> list[Application]:
        """The applications the user is a member of, newest first."""

    async def role(self, token: str, user_id: int) -> Role | None: ...
    async def member(self, token: str, email: str) -> int | None:
        """The user's id of the application's member with this email."""

    async def members(self, token: str, *, offset: int, limit: int) -> list[Member]:
        """The application's members, the oldest accounts first."""

    async def chat(self, key: ChatKey) -> Chat | None: ...
    async def chats(self, token: str, *, offset: int, limit: int) -> list[Chat]:
        """The application's chats, newest first."""

    async def message(self, key: ChatKey, number: int) -> Message | None: ...
    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> list[Message]:
        """Up to ``limit`` messages, newest first: the newest, those below ``before``, or those next above ``after``.

        ``offset`` skips that many of the newest, or of those below ``before``; it can't be used with ``after``.
        """

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> list[Message]:
        """The messages with these numbers that exist, in no order; up to a thousand numbers."""

    async def posted(self, key: ChatKey, sender_id: int, idempotency_key: str) -> tuple[int, bytes] | None:
        """The number and body hash of the message that the sender posted with this key, even if it is deleted."""


class Intake(Protocol):
    """The entry for commands. When a ticket says that a command was done, it is durable and in every later read."""

    def accept(self, command: Command) -> Ticket:
        """Carry out the command.

        Raises:
            Unavailable, RateLimited: nothing was done. The ticket may say so too, later.
        """

    async def post(self, caller: Caller, key: ChatKey, body: str, idempotency_key: str | None) -> Ticket:
        """Send a message to a chat that exists. The ticket's outcome is its number.

        With an Idempotency-Key, a retry gets the first try's outcome and adds nothing.

        Raises:
            KeyReused: the key was used here by this sender with another body. The ticket may say so too, later.
            Unavailable, RateLimited: nothing was done. The ticket may say so too, later.
        """


class View(Protocol):
    """Reads of frequently changing data, from a cache where possible. They see every acknowledged command, unless the
    answer says that it may lag.

    Losing the cache loses nothing: missing data is read from the store again. The parameters of ``messages`` and
    ``numbered`` are those of Store.
    """

    large_pages: LargePages

    async def role(self, caller: Caller, token: str) -> Role | None: ...

    async def exists(self, caller: Caller, key: ChatKey) -> bool:
        """Whether there is such a chat."""

    async def newest(self, caller: Caller, key: ChatKey, limit: int) -> Page:
        """The newest messages of a chat that exists."""

    async def message(self, key: ChatKey, number: int) -> MessagesRead:
        """One message, or none."""

    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> MessagesRead: ...

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> MessagesRead: ...

    async def chats(self, caller: Caller, token: str, limit: int) -> bytes:
        """The application's newest chats, encoded as the API sends them."""


class Document(NamedTuple):
    """A message as it is now, to be put into a search index. ``body`` is None when the message is gone. ``version``
    rises with every edit (0 where no later document can overtake this one). ``edited``: it had another text before.
    """

    chat: ChatKey
    number: int
    body: str | None
    version: int = 0
    edited: bool = False


class Candidates(NamedTuple):
    """Numbers of messages, newest first; not ``whole`` when the index ran out of time and left some out."""

    numbers: list[int]
    whole: bool = True


class SearchIndex(Protocol):
    """Finds messages that may match a query. It may lag behind the store, and may return messages that do not match."""

    async def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Candidates:
        """The newest candidates, or the newest of those ``below`` a number. All indexed messages that match are
        candidates, and perhaps others. With ``typos``, also those that match with typos.

        Raises:
            Unavailable: the index can't be asked now.
        """


class Wants(NamedTuple):
    """What a request will need: an application (a chat number of 0), ``newest`` messages of a chat, or a number for a
    message of ``number`` characters. A gate that asks another server may fetch it in the same trip.
    """

    chat: ChatKey
    newest: int = 0
    number: int = 0


class Entry(NamedTuple):
    """The result of entering a gate. ``mark`` changes whenever a session of the user is ended; it is empty while a
    session is being ended, and when that can't be known now. ``brought`` is what the gate fetched, see Wants."""

    mark: str
    brought: object = None


class AtOnce(Protocol):
    """What a process that has everything in its own memory does without waiting. Each counts one request of the user,
    as Gate.enter does. None says only that memory is not enough, and counts nothing: use the other ports then.

    Each raises RateLimited.
    """

    def newest(self, user: User, mark: str, key: ChatKey, limit: int) -> KeptPage | None:
        """As View.newest, for a member."""

    def chats(self, user: User, mark: str, token: str, limit: int) -> bytes | None:
        """As View.chats, for a member."""

    def post(self, user: User, mark: str, key: ChatKey, body: str, trace: str) -> Ticket | None:
        """As Intake.post, for a member and a chat that exists. Raises Unavailable too."""


class OneTrip(Protocol):
    """What a process does by one trip to another server: ``ask`` is Gate.enter, and the others answer from what that
    brought for the same user, chat and application. None says only that this is not enough: use the other ports then,
    with the same Entry. None of them counts a request, or checks a session.
    """

    def ask(self, user_id: int, mark: str, wants: Wants, done: Callable[[Entry | Exception], None]) -> None:
        """Call ``done`` with the result of Gate.enter, or with what that raises; later, never before this returns."""

    def newest(self, user: User, brought: object, key: ChatKey, limit: int) -> KeptPage | None:
        """As View.newest, for a member."""

    def chats(self, user: User, brought: object, token: str, limit: int) -> bytes | None:
        """As View.chats, for a member."""

    def post(self, user: User, brought: object, key: ChatKey, body: str, trace: str) -> Ticket | None:
        """As Intake.post, for a member and a chat that exists."""


class Gate(Protocol):
    """Counts every request of a user, over all processes that serve, and knows whether the user's sessions changed.

    A user may send a limited number of requests a second, and after a pause twice that number at once.
    """

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        """Count one request of the user, who got ``mark`` when entering before.

        Raises:
            RateLimited: the user has sent too many.
        """

    async def sessions_change(self, user_id: int) -> Callable[[], Awaitable[None]]:
        """To be called before sessions of the user are ended. From now on the user's mark is empty, in every process.
        The returned function, called afterwards, gives the user a new mark. If it is not called, or can't do that now,
        the mark stays empty until the change can't be under way any more.

        Raises:
            Unavailable: the mark can't be changed now.
        """


class Counts(Protocol):
    """Counts against limits, each by a key, over all processes that serve. A count is forgotten once it is back to
    zero, so memory is bounded.
    """

    async def take(self, counted: Sequence[tuple[Limit, str]]) -> Callable[[], Awaitable[None]]:
        """Count one against each. The returned function undoes this where only failures count; call it at most once.

        Raises:
            UsedUp: one of them is used up; nothing was counted.
        """


class Passwords(Protocol):
    """Hashes passwords: slow on purpose, and not on the event loop."""

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


@dataclass(frozen=True, slots=True)
class Ports:
    """The dependencies of the services: an adapter for each port, the quotas of users, ``now`` in milliseconds since
    1970, and the limits of deep pages."""

    store: Store
    intake: Intake
    view: View
    index: SearchIndex
    quotas: Quotas
    now: Callable[[], int]
    deep_pages: DeepPages = field(default_factory=DeepPages)
