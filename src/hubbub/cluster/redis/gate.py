"""The gate that every request of a user passes first, for all processes of a cluster. One round trip to Redis checks
the request and also reads what it asks for. All requests of one turn of the event loop travel together."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey, is_token
from hubbub.chat.ports import Entry, Gate, Wants
from hubbub.cluster.publisher import Publisher, Reservation
from hubbub.cluster.redis.connection import OtherData, RedisClient
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.pages import Application, Applications, Pages
from hubbub.cluster.redis.servers import Servers

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
        self, publisher: Publisher, reservation: Reservation, generation: int, epoch: int, number: int
    ) -> None:
        self._publisher = publisher
        self._reservation: Reservation | None = reservation
        self.generation = generation
        self.epoch = epoch
        self.number = number

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


class _Trip:
    """The requests of one turn of the event loop to one server, and the futures that wait for the answers. ``names``
    made its keys; ``pages`` counts the requests that read messages."""

    __slots__ = ("client", "keys", "names", "pages", "waiting", "words")

    def __init__(self, client: RedisClient, names: Keys) -> None:
        self.client = client
        self.names = names
        self.keys: list[str] = []
        self.words: list[str | bytes | int] = []
        self.pages = 0
        self.waiting: list[asyncio.Future[Any]] = []


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
        alone: Gate,
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
        if wants is None:
            return await self._enter(user_id, mark)
        path = self._paths.get((user_id, wants.chat))
        if path is None and not is_token(wants.chat.token):  # no other text may be kept, here or in Redis
            return await self._enter(user_id, mark)
        token = wants.chat.token
        known = self._applications.get(token)
        reservation: Reservation | None = None
        try:
            if path is None or path.client.keys is not path.names:
                path = self._find(user_id, wants.chat)
            slot, client, names = path.slot, path.client, path.names
            versions = _known(mark, slot, names.generation), b"" if known is None else known.version
            if wants.number and known is not None and user_id in known.roles and client.takes_numbers:
                # Reserve room before the number is taken, so that nothing refuses the post afterwards (rule 7). If
                # there is no room, it takes no number here, and the intake refuses the post.
                reservation = self._publisher.try_hold(token, wants.number, user_id)
            if reservation is not None:
                answer = self._ask(client, names, path.number, ("n", *versions))
            elif wants.newest:
                page = self._pages.version(wants.chat) if wants.newest == self._pages.limit else b""
                answer = self._ask(client, names, path.page, (wants.newest, *versions, page), page=True)
            else:
                answer = self._ask(client, names, path.application, ("a", *versions))
            reply = await answer
            found = reply[3] if len(reply) > 3 else None
            reserved: ReservedNumber | None = None
            if reservation is not None and found is not None:
                reserved = ReservedNumber(self._publisher, reservation, names.generation, int(found[0]), int(found[1]))
                reservation = None
        except Unavailable:
            await self._alone.enter(user_id)
            return Entry("")
        finally:
            if reservation is not None:
                self._publisher.release(reservation)
        self._must_be_in(reply)
        newest = found if wants.newest else None
        if reply[2] is not None:
            known = self._applications.at(token, reply[2])
        assert known is not None  # noqa: S101 - no version is returned only if it is the one that was sent
        if reply[0] is not None:
            mark = _mark(mark, slot, names.generation, reply[0])
        return Entry(mark, Seen(known, names.generation, wants.newest, newest, reserved))

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

    async def _enter(self, user_id: int, mark: str) -> Entry:
        client = self._servers.of_user(user_id)
        try:
            names = client.named()
            reply = await self._ask(client, names, (names.user(user_id), names.rate(user_id)), ("s",))
        except Unavailable:
            await self._alone.enter(user_id)
            return Entry("")
        self._must_be_in(reply)
        return Entry(_mark(mark, self._servers.clients.index(client), names.generation, reply[0]))

    def _ask(
        self,
        client: RedisClient,
        names: Keys,
        keys: tuple[str, ...],
        words: tuple[str | bytes | int, ...],
        *,
        page: bool = False,
    ) -> asyncio.Future[Any]:
        """Ask scripts/enter.lua for one request; ``page`` says that it reads messages. The future gets the script's
        result for it, or Unavailable."""
        loop = asyncio.get_running_loop()
        trip = self._trips.get(client)
        if trip is None or trip.names is not names:
            trip = self._trips[client] = _Trip(client, names)
            loop.call_soon(self._go, trip)
        trip.keys += keys
        trip.words += words
        trip.pages += page
        answer = loop.create_future()
        trip.waiting.append(answer)
        if len(trip.waiting) == _MOST_TOGETHER or trip.pages == _MOST_PAGES:
            self._go(trip)
        return answer

    def _go(self, trip: _Trip) -> None:
        waiting, trip.waiting = trip.waiting, []
        if not waiting:  # it was full and has been sent
            return
        if self._trips.get(trip.client) is trip:
            del self._trips[trip.client]
        if trip.client.keys is not trip.names:
            _refuse(waiting, OtherData())
            return
        keys = trip.keys
        try:
            reply = trip.client.script("enter", len(keys), *keys, unique(), self._user_rate, *trip.words)
        except Unavailable as error:
            _refuse(waiting, error)
            return
        reply.add_done_callback(partial(_answer, waiting, trip.client.data_set))

    def _must_be_in(self, reply: Any) -> None:
        if not reply[1]:
            raise RateLimited(
                f"You may send {self._user_rate} requests a second. Slow down.", limit=self._user_rate, retry_after=1
            )

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


def _answer(waiting: list[asyncio.Future[Any]], data_set: bytes, reply: asyncio.Future[Any]) -> None:
    error = reply.exception()
    if error is not None:
        _refuse(waiting, error)
        return
    answered_from, results = reply.result()
    if answered_from != data_set:
        _refuse(waiting, OtherData())
        return
    for answer, result in zip(waiting, results, strict=True):
        if type(result) is not list:
            refused = result.decode("utf-8", "replace").split(":")[0][:80]
            _refuse([answer], Unavailable(f"Redis refuses: {refused}. Try again a little later."))
        elif not answer.done():
            answer.set_result(result)


def _refuse(waiting: list[asyncio.Future[Any]], error: BaseException) -> None:
    for answer in waiting:
        if not answer.done():
            answer.set_exception(error)


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
