"""The gate that every request of a user passes first, for all processes of a cluster. One round trip to Redis checks
the request and also reads what it asks for. All requests of one turn of the event loop travel together."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey, is_token
from hubbub.chat.ports import Entry, Wants
from hubbub.cluster.publisher import Publisher, Reservation
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.pages import Application, Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.http.limits import LocalGate

log = logging.getLogger("hubbub.redis")

_process = secrets.token_hex(8)
_counter = itertools.count(1)
# The most requests in one trip, and the most of them that read messages: Redis serves no other client while it runs the
# script. A request that reads messages of the greatest length takes Redis 1.3 ms.
_MOST_TOGETHER = 100
_MOST_PAGES = 8
_PATHS = 20_000  # remembered, some 700 bytes each


def unique() -> str:
    """A word that was never used before, by any process."""
    return f"{_process}.{next(_counter)}"


class ReservedNumber:
    """A number that Redis gave to a request, and the room in the queue that was reserved before.

    A request that fails before it posts uses neither: the number becomes a gap, and the room is released when this
    object is freed.
    """

    __slots__ = ("_publisher", "_reservation", "epoch", "generation", "number")

    def __init__(
        self, publisher: Publisher, reservation: Reservation, generation: int, epoch: bytes, number: bytes
    ) -> None:
        self._publisher = publisher
        self._reservation: Reservation | None = reservation
        self.generation = generation
        self.epoch = int(epoch)
        self.number = int(number)

    def take(self) -> Reservation:
        """Hand over the reservation; the caller must use or release it. May be called once only."""
        reservation, self._reservation = self._reservation, None
        assert reservation is not None  # noqa: S101 - a request posts once
        return reservation

    def __del__(self) -> None:
        if self._reservation is not None:
            self._publisher.release(self._reservation)


class Seen:
    """What the gate has read for a request: its application at the current version, and what it asked for of a chat:
    a number (``reserved``), or up to ``limit`` newest messages as scripts/shared.lua returns them (``newest``)."""

    __slots__ = ("application", "generation", "limit", "newest", "reserved")

    def __init__(
        self, application: Application, generation: int, limit: int, newest: Any, reserved: ReservedNumber | None
    ) -> None:
        self.application = application
        self.generation = generation
        self.limit = limit
        self.newest = newest
        self.reserved = reserved


class _Path(NamedTuple):
    """The server of a user's requests for a chat, and their keys for scripts/enter.lua, made by ``names``: of one that
    asks for the application alone, for a number, and for messages."""

    slot: int
    client: RedisClient
    names: Keys
    application: tuple[str, ...]
    number: tuple[str, ...]
    page: tuple[str, ...]


# A request in a trip: who waits for its Entry, the user and the mark that the caller knows, the application's token
# (empty for none) and what is remembered of it, how many messages are asked for, and the room reserved for a post. It
# is a plain tuple, because each request makes one.
_Asked: TypeAlias = tuple[
    Callable[[Entry | Exception], None], int, str, str, Application | None, int, Reservation | None
]


class _Trip:
    """The requests of one turn of the event loop to one server, ``slot``. ``names`` made their keys; ``pages`` counts
    the requests that read messages."""

    __slots__ = ("asked", "client", "keys", "names", "pages", "slot", "words")

    def __init__(self, slot: int, client: RedisClient, names: Keys) -> None:
        self.slot = slot
        self.client = client
        self.names = names
        self.keys: list[str] = []
        self.words: list[str | bytes | int] = []
        self.pages = 0
        self.asked: list[_Asked] = []


class RedisGate:
    """See chat.ports.Gate. ``alone`` counts requests while Redis can't be reached."""

    def __init__(
        self,
        servers: Servers,
        publisher: Publisher,
        applications: Applications,
        pages: Pages,
        *,
        user_rate: int,
        alone: LocalGate,
    ) -> None:
        self._servers = servers
        self._publisher = publisher
        self._applications = applications
        self._pages = pages
        self._user_rate = user_rate
        self._alone = alone
        self._trips: dict[RedisClient, _Trip] = {}
        self._paths: dict[tuple[int, ChatKey], _Path] = {}

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        answer: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()

        def done(entered: Entry | Exception) -> None:
            if answer.done():  # the request was given up
                return
            if isinstance(entered, Exception):
                answer.set_exception(entered)
            else:
                answer.set_result(entered)

        self.ask(user_id, mark, wants, done)
        return await answer

    def ask(self, user_id: int, mark: str, wants: Wants | None, done: Callable[[Entry | Exception], None]) -> None:
        """See chat.ports.OneTrip."""
        asked: _Asked = (done, user_id, mark, "", None, 0, None)
        try:
            if wants is None:
                self._ask_for_user(asked)
                return
            path = self._paths.get((user_id, wants.chat))
            if path is None or path.client.keys is not path.names:
                if not is_token(wants.chat.token):  # no other text may be kept, here or in Redis
                    self._ask_for_user(asked)
                    return
                path = self._find(user_id, wants.chat)
        except Unavailable:
            asyncio.get_running_loop().call_soon(self._count_alone, asked)
            return
        slot, client, names = path.slot, path.client, path.names
        token = wants.chat.token
        known = self._applications.get(token)
        newest, reservation = wants.newest, None
        if wants.number and known is not None and user_id in known.roles and client.takes_numbers:
            # Reserve room before the number is taken, so that nothing refuses the post afterwards (rule 7). If there is
            # no room, it takes no number here, and the intake refuses the post.
            reservation = self._publisher.try_hold(token, wants.number, user_id)
        trip = self._trip(slot, client, names)
        user_version = _known(mark, slot, names.generation)
        version = b"" if known is None else known.version
        if reservation is not None:
            trip.keys += path.number
            trip.words += ("n", user_version, version)
        elif newest:
            page = self._pages.version(wants.chat) if newest == self._pages.limit else b""
            trip.keys += path.page
            trip.words += (newest, user_version, version, page)
            trip.pages += 1
        else:
            trip.keys += path.application
            trip.words += ("a", user_version, version)
        trip.asked.append((done, user_id, mark, token, known, newest, reservation))
        if trip.pages == _MOST_PAGES or len(trip.asked) == _MOST_TOGETHER:
            self._leave(trip)

    def _find(self, user_id: int, chat: ChatKey) -> _Path:
        """The path in the current generation, which is remembered. Raises Unavailable while that is not known."""
        slot = self._servers.slot_of(chat.token)
        client = self._servers.clients[slot]
        names = client.named()
        at = names.of(chat)
        application = (names.user(user_id), names.rate(user_id), at.application)
        number = (*application, at.chat)
        page = (*number, names.drained(self._publisher.shard_of(chat.token)))
        if len(self._paths) >= _PATHS:
            self._paths.clear()
        path = self._paths[user_id, chat] = _Path(slot, client, names, application, number, page)
        return path

    def _ask_for_user(self, asked: _Asked) -> None:
        """Ask without an application. Raises Unavailable."""
        user_id = asked[1]
        client = self._servers.of_user(user_id)
        names = client.named()
        trip = self._trip(self._servers.clients.index(client), client, names)
        trip.keys += (names.user(user_id), names.rate(user_id))
        trip.words.append("s")
        trip.asked.append(asked)
        if len(trip.asked) == _MOST_TOGETHER:
            self._leave(trip)

    def _trip(self, slot: int, client: RedisClient, names: Keys) -> _Trip:
        """The trip to the server that the requests of this turn of the event loop join."""
        trip = self._trips.get(client)
        if trip is None or trip.names is not names:
            trip = self._trips[client] = _Trip(slot, client, names)
            asyncio.get_running_loop().call_soon(self._go, trip)
        return trip

    def _leave(self, trip: _Trip) -> None:
        """Nobody joins the trip any more. It goes in the next turn of the event loop."""
        if self._trips.get(trip.client) is trip:
            del self._trips[trip.client]

    def _go(self, trip: _Trip) -> None:
        self._leave(trip)
        client, keys = trip.client, trip.keys
        reply: asyncio.Future[Any] | None = None
        if client.keys is trip.names:
            with suppress(Unavailable):
                reply = client.script("enter", len(keys), *keys, unique(), self._user_rate, *trip.words)
        if reply is None:
            self._fail(trip)
        else:
            reply.add_done_callback(partial(self._came, trip, client.data_set))

    def _came(self, trip: _Trip, data_set: bytes, reply: asyncio.Future[Any]) -> None:
        if reply.exception() is not None:
            self._fail(trip)
            return
        answered_from, results = reply.result()
        if answered_from != data_set:
            self._fail(trip)
            return
        for asked, result in zip(trip.asked, results, strict=True):
            if type(result) is not list:  # the script failed for this request
                self._count_alone(asked)
                continue
            try:
                entered = self._entry(trip, asked, result)
            except Exception as error:  # noqa: BLE001 - handed to who waits
                _call(asked[0], error)
            else:
                _call(asked[0], entered)

    def _entry(self, trip: _Trip, asked: _Asked, result: list[Any]) -> Entry | RateLimited:
        """The Entry of a request by what scripts/enter.lua has returned for it, or its refusal. That is not raised: its
        traceback would keep all that the trip brought, until a garbage collection."""
        _, _, mark, token, known, newest, reservation = asked
        found = result[3] if len(result) > 3 else None
        reserved: ReservedNumber | None = None
        generation = trip.names.generation
        if reservation is not None:
            if found is None:
                self._publisher.release(reservation)
            else:
                reserved = ReservedNumber(self._publisher, reservation, generation, found[0], found[1])
        if not result[1]:
            return RateLimited(
                f"You may send {self._user_rate} requests a second. Slow down.", limit=self._user_rate, retry_after=1
            )
        if result[0] is not None:
            mark = _mark(mark, trip.slot, generation, result[0])
        if not token:
            return Entry(mark)
        if result[2] is not None:
            known = self._applications.at(token, result[2])
        assert known is not None  # noqa: S101 - no version is returned only if it is the one that was sent
        return Entry(mark, Seen(known, generation, newest, found if newest else None, reserved))

    def _fail(self, trip: _Trip) -> None:
        """The trip has failed as a whole."""
        for asked in trip.asked:
            self._count_alone(asked)

    def _count_alone(self, asked: _Asked) -> None:
        """Let a request in without Redis."""
        done, user_id, *_, reservation = asked
        if reservation is not None:
            self._publisher.release(reservation)
        try:
            self._alone.enter_now(user_id)
        except RateLimited as refused:
            _call(done, refused)
        else:
            _call(done, Entry(""))

    async def sessions_change(self, user_id: int) -> Callable[[], Awaitable[None]]:
        return await sessions_change(self._servers, user_id)


async def sessions_change(servers: Servers, user_id: int) -> Callable[[], Awaitable[None]]:
    """See chat.ports.Gate."""
    change = unique()

    async def tell(fresh: str) -> None:
        for client in servers.clients:
            await client.script("sessions", 1, client.named().user(user_id), change, fresh)

    async def over() -> None:
        try:
            await tell(unique())
        except Unavailable as error:
            log.warning("Requests of a user are checked in the store for an hour: %s", error.sentence)

    await tell("")
    return over


def _call(done: Callable[[Entry | Exception], None], entered: Entry | Exception) -> None:
    """A failure of one who waits must not stop the others."""
    try:
        done(entered)
    except Exception:
        log.exception("A request could not be continued.")


def _mark(mark: str, slot: int, generation: int, version: bytes) -> str:
    """The caller's mark with this server's part updated. A mark has a part for each server that was asked:
    ``SLOT=GENERATION:VERSION``, separated by bars. It is empty while the user's sessions change, see
    scripts/sessions.lua."""
    if version.startswith(b"~"):
        return ""
    part = f"{slot}={generation}:{version.decode()}"
    if mark == part or not mark:
        return part
    parts = {each.partition("=")[0]: each for each in mark.split("|")}
    parts[str(slot)] = part
    return "|".join(each for _, each in sorted(parts.items()))


@lru_cache(10_000)
def _known(mark: str, slot: int, generation: int) -> str:
    """The version in a mark's part for this server's generation; empty when there is none."""
    for part in mark.split("|"):
        at, _, version = part.partition(":")
        if at == f"{slot}={generation}":
            return version
    return ""
