"""Publishes commands to the queue: RabbitMQ, quorum queues, publisher confirms, one queue for each shard of tokens.

Group publishing: a process has one message for a shard on its way to the broker at a time, and the commands that arrive
before its confirm travel together in the next one. So the busier the service is, the more commands share one message.

This module implements rules 1 and 2. A shard's deliveries are numbered 1, 2, 3 …; the next one is sent when the one
before is confirmed, so when a command is reported as queued, all earlier ones are in the queue. A delivery that was not
confirmed may be in the queue or not: its commands are refused as uncertain, and the shard continues as another
publisher, from 1.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from aio_pika.abc import AbstractConnection

from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.ticket import Ticket
from hubbub.chat.user_bytes import SERVICE, UserBytes
from hubbub.cluster import broker, confirming, protocol
from hubbub.cluster.broker import CONFIRM_S, CONNECT_S, HEARTBEAT_S, LOST, URGENT, queue_name
from hubbub.cluster.confirming import Confirming
from hubbub.cluster.protocol import Barrier, Delivery, OpenChat, Queued, encode
from hubbub.cluster.tasks import keep

log = logging.getLogger("hubbub.queue")

_OVERHEAD = 500  # bytes a command costs beside its body
_ALONE = (OpenChat, Barrier)  # the only commands of their deliveries
_MOST_TOGETHER = 500  # commands in one AMQP message
_MOST_BYTES = 1024 * 1024  # of text in one
# A message costs this process, the broker and the writer as much as many commands in it. So while several senders share
# a shard, its messages are sent at least so long apart, unless many commands wait. A command that comes alone, and the
# next of a sender who waited for the answer, are sent at once.
_APART_S = 0.008
_SHARED_S = 0.1  # after commands have waited for a confirm, the shard counts as shared for so long
_MANY = 50
_STALLED_S = 1.0
_FORGOTTEN_S = (
    24 * 3600.0
)  # after so long without a delivery the shard takes a new publisher: the store forgets old ones after a week
_BACKLOG_S = 2.0
_TRIES = 50
_TRY_AGAIN_S = 0.1
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class NeverSent(Unavailable):
    """The command was refused before it was sent: it will never be stored."""


class Reservation(NamedTuple):
    """Room in the queue that is reserved for one command of a user, in bytes."""

    shard: int
    size: int
    user_id: int


# What a command's listener is told: None once the broker has confirmed it.
Told: TypeAlias = Callable[[Unavailable | None], None]


class _Parked(NamedTuple):
    command: Queued
    told: Told
    reservation: Reservation


class _Shard:
    """One shard's queue as this process publishes to it.

    ``sent`` is when the last delivery was sent, ``shared`` when a confirm last found commands that had waited for it.

    Invariant: ``since`` is when the unconfirmed delivery was sent; None when there is none.
    """

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.waiting: deque[_Parked] = deque()
        self.since: float | None = None
        self.sent = self.shared = -1.0
        self.timer: asyncio.TimerHandle | None = None
        self.renew()

    def renew(self) -> None:
        """Continue as another publisher."""
        self.publisher = secrets.token_hex(12)
        self.sequence = 0
        self._note()

    def next(self, commands: list[Queued]) -> Delivery:
        """The next delivery. All earlier ones must be confirmed."""
        if self._silent_s() > _FORGOTTEN_S:
            self.renew()
        self.sequence += 1
        self._note()
        return Delivery(self.publisher, self.sequence, commands, self.sequence - 1)

    def _note(self) -> None:
        self.sent_at = time.time(), time.monotonic()

    def _silent_s(self) -> float:
        """How long nothing was sent, by the clock that says most: one may have been set back, the other stands still
        while the machine sleeps."""
        by_clock, by_machine = self.sent_at
        return max(abs(time.time() - by_clock), time.monotonic() - by_machine)


class Publisher:
    """The publisher of a process. A command's listener, or its ticket, is told None once the broker has confirmed it.

    ``accepted`` counts the commands given to ``send``.
    """

    def __init__(
        self,
        url: str,
        shards: int,
        *,
        max_commands: int = 20_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_user_bytes: int = 1024 * 1024,
    ) -> None:
        self._url = url
        self._max_commands = max_commands
        self._max_bytes = max_bytes
        self._shards = [_Shard(queue_name(shard)) for shard in range(shards)]
        self._loop = asyncio.get_running_loop()
        self._connection: Confirming | None = None
        self._looking: AbstractConnection | None = None
        self._looks = asyncio.Lock()
        self._commands = 0
        self._bytes = 0
        self._of_users = UserBytes(max_user_bytes)
        self.accepted = 0
        self._closed = False
        self._sending: set[asyncio.Task[None]] = set()
        self._keeping = keep(self._keep_connected(), "the connection to RabbitMQ")

    @property
    def depth(self) -> int:
        return self._commands

    @property
    def shards(self) -> int:
        return len(self._shards)

    def shard_of(self, token: str) -> int:
        return protocol.shard_of(token, len(self._shards))

    @property
    def fault(self) -> str | None:
        if self._connection is None:
            return "RabbitMQ can't be reached."
        if self._connection.blocked:
            return "RabbitMQ takes no messages."
        if any(self._stalled(shard) for shard in self._shards):
            return "RabbitMQ does not confirm messages."
        return None

    async def backlog(self) -> dict[str, int]:
        """The number of deliveries in each shard's queue; empty while RabbitMQ can't be reached."""
        if self._connection is None:
            return {}
        try:
            async with asyncio.timeout(_BACKLOG_S), self._looks:
                if self._looking is None:
                    self._looking = await broker.connect(self._url, "hubbub backlog")
                channel = await self._looking.channel()
                try:
                    depths = {}
                    for shard in self._shards:
                        queue = await channel.declare_queue(shard.queue, passive=True)
                        depths[shard.queue] = queue.declaration_result.message_count or 0
                    return depths
                finally:
                    await channel.close()
        except LOST:
            await self._look_no_more()
            return {}

    async def _look_no_more(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            await broker.close(looking)

    def _stalled(self, shard: _Shard) -> bool:
        return shard.since is not None and self._loop.time() - shard.since > _STALLED_S

    async def connected(self, within_s: float) -> bool:
        """Wait until there is a connection, at most ``within_s`` seconds. Returns whether there is one."""
        until = self._loop.time() + within_s
        while self._connection is None and self._loop.time() < until:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        return self._connection is not None

    # Taking ------------------------------------------------------------------------------------------------------

    def hold(self, token: str, characters: int, user_id: int) -> Reservation:
        """Reserve room in the queue for one command of the user with a text of ``characters`` characters. ``send`` or
        ``release`` must follow.

        Raises:
            NeverSent: there is no room, or RabbitMQ can't be reached.
            RateLimited: the user's share of the room is used up.
        """
        shard = self.shard_of(token)
        size = _OVERHEAD + characters
        connection = self._connection
        if connection is None or not connection.takes or self._closed or self._stalled(self._shards[shard]):
            raise NeverSent("The write queue can't be reached. Nothing was stored; send it again a little later.")
        if self._commands >= self._max_commands or self._bytes + size > self._max_bytes:
            raise NeverSent("The write queue is full. Nothing was stored; send it again a little later.")
        self._of_users.take(user_id, size)
        self._commands += 1
        self._bytes += size
        return Reservation(shard, size, user_id)

    def try_hold(self, token: str, characters: int, user_id: int) -> Reservation | None:
        """Like ``hold``, but returns None where that raises."""
        try:
            return self.hold(token, characters, user_id)
        except (NeverSent, RateLimited):
            return None

    def release(self, reservation: Reservation) -> None:
        self._commands -= 1
        self._bytes -= reservation.size
        self._of_users.give_back(reservation.user_id, reservation.size)

    def send(self, command: Queued, reservation: Reservation) -> Ticket:
        """As ``send_for``. The ticket is resolved with what the listener would be told."""
        ticket = Ticket(command)
        self.send_for(command, reservation, ticket.resolve)
        return ticket

    def send_for(self, command: Queued, reservation: Reservation, told: Told) -> None:
        """Send the command in the reserved room. Its listener is told NeverSent if it can't be queued, and Unavailable
        if it is not known whether it was queued."""
        self.accepted += 1
        shard = self._shards[reservation.shard]
        shard.waiting.append(_Parked(command, told, reservation))
        if shard.since is None:
            self._start(shard)

    def accept(self, command: OpenChat) -> Ticket:
        """Send a marker. Raises NeverSent."""
        return self.send(command, self.hold(command.chat.token, 0, SERVICE))

    def accept_barrier(self, shard: int, command: Barrier) -> Ticket | None:
        """Send a barrier through a shard's queue; None when it can't be sent now."""
        if self.fault is not None or self._closed or self._commands >= self._max_commands:
            return None
        self._commands += 1
        self._bytes += _OVERHEAD
        return self.send(command, Reservation(shard, _OVERHEAD, SERVICE))

    # Sending -----------------------------------------------------------------------------------------------------

    def _start(self, shard: _Shard) -> None:
        shard.since = self._loop.time()
        task = keep(self._send(shard), "publishing")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, shard: _Shard) -> None:
        """Send the waiting commands, delivery by delivery, until none is left."""
        while shard.waiting:
            now = self._loop.time()
            if now - shard.shared < _SHARED_S and now - shard.sent < _APART_S and len(shard.waiting) < _MANY:
                await asyncio.sleep(shard.sent + _APART_S - now)
            batch = self._gather(shard)
            if not batch:
                break
            shard.since = shard.sent = self._loop.time()
            connection = self._connection
            if connection is None or not connection.takes:  # nothing was sent
                self._tell(batch, _never("The write queue can't be reached."))
                continue
            delivery = shard.next([parked.command for parked in batch])
            kind = URGENT if isinstance(delivery.commands[0], _ALONE) else None
            confirm = connection.publish(shard.queue, encode(delivery), kind)
            shard.timer = self._loop.call_later(_STALLED_S, self._late, shard, connection, confirm)
            doubt = await confirm
            shard.timer.cancel()
            if shard.waiting:
                shard.shared = self._loop.time()
            refusal: Unavailable | None = None
            if doubt is not None:
                log.error("RabbitMQ took %d commands and did not confirm them: %s", len(batch), doubt)
                shard.renew()
                refusal = Unavailable("The write queue did not confirm this in time; it may or may not be stored.")
            self._tell(batch, refusal)
        shard.since = None

    def _late(self, shard: _Shard, connection: Confirming, confirm: asyncio.Future[str | None]) -> None:
        """Refuse the commands that were not sent yet, because the broker does not confirm: they must not wait. A little
        later, wait no longer for the confirm either."""
        why = f"no confirm within {CONFIRM_S:.0f} s"
        shard.timer = self._loop.call_later(CONFIRM_S - _STALLED_S, connection.give_up, confirm, why)
        waiting, shard.waiting = list(shard.waiting), deque()
        self._tell(waiting, _never("The write queue does not answer."))

    @staticmethod
    def _gather(shard: _Shard) -> list[_Parked]:
        """Take the commands of the next delivery. A marker is sent alone: the writer must know what the store has at
        that point."""
        batch: list[_Parked] = []
        size = 0
        while shard.waiting and len(batch) < _MOST_TOGETHER and size < _MOST_BYTES:
            alone = isinstance(shard.waiting[0].command, _ALONE)
            if alone and batch:
                break
            batch.append(shard.waiting.popleft())
            size += batch[-1].reservation.size
            if alone:
                break
        return batch

    def _tell(self, batch: Sequence[_Parked], refusal: Unavailable | None) -> None:
        for _, told, reservation in batch:
            self.release(reservation)
            try:
                told(refusal)
            except Exception:
                log.exception("A listener failed; the queued commands are not affected.")

    # Connecting --------------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        failures = 0
        while not self._closed:
            connection: Confirming | None = None
            try:
                await self._declare()
                connection = await confirming.connect(
                    self._url, "hubbub api", heartbeat_s=HEARTBEAT_S, within_s=CONNECT_S
                )
                for shard in self._shards:
                    await self._try(connection, shard.queue)
                self._connection = connection
                if failures:
                    log.warning("RabbitMQ answers again.")
                failures = 0
                await connection.lost.wait()
                log.error("The connection to RabbitMQ was lost: %s", connection.why)
            except LOST as error:
                if failures == 0:
                    log.error("RabbitMQ can't be used: %r", error)
                failures += 1
            finally:
                self._connection = None
                if connection is not None:
                    await connection.close()
            if not self._closed:
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])

    async def _declare(self) -> None:
        """Declare the queues. Raises one of LOST."""
        connection = await broker.connect(self._url, "hubbub api's queues")
        try:
            channel = await connection.channel()
            for shard in range(len(self._shards)):
                await broker.declare(connection, channel, shard)
        finally:
            await broker.close(connection)

    @staticmethod
    async def _try(connection: Confirming, queue: str) -> None:
        """Send an empty delivery until it is confirmed: a queue that another process is declaring right now already
        exists, but accepts no messages yet. Raises one of LOST."""
        hello = encode(Delivery(secrets.token_hex(12), 1, [], 0))
        refused: str | None = ""
        for _ in range(_TRIES):
            async with asyncio.timeout(CONFIRM_S):
                refused = await connection.publish(queue, hello)
            if refused is None:
                return
            if connection.lost.is_set():
                break
            await asyncio.sleep(_TRY_AGAIN_S)
        raise ConnectionError(f"{queue} takes nothing: {refused}")

    async def close(self) -> None:
        """Refuse new commands, and finish the accepted ones."""
        self._closed = True
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        await self._look_no_more()


def _never(why: str) -> NeverSent:
    return NeverSent(f"{why} Nothing was stored; send it again a little later.")
