"""The hot data of the cluster mode, in Redis: numbers, the newest messages, versions of what processes remember.

Losing Redis loses nothing and repeats no number. This is how:

- Every key begins with the id of the Redis process that holds it (see RedisWire.run). After a restart, with whatever
  snapshot, nothing that was there before is looked at again.
- A chat is *open* while its hash is there: fields ``e`` epoch, ``n`` the last number given, ``f`` floor, numbers with
  their messages, ``o:`` numbers with changes that are not stored yet, ``k:`` Idempotency-Keys that are not, ``p`` how
  far a copy of the store must be to have all that is not here. It comes and goes as a whole. Invariant: every
  acknowledged message above the floor is in it; those at or below are in the store, or in it as well.
- A chat that is not open is opened by a marker (OpenChat) that travels through the chat's own queue behind all that was
  queued before. The writer that meets it tells the last number there is, and opens the chat with it, provided that the
  announcement of the marker, made before it was queued, has been in Redis ever since: otherwise Redis was emptied in
  between, and what was numbered meanwhile may not have been counted.
- A number is told to nobody until the message is in the queue *and* the chat is then still open in the same epoch. So
  when a chat is found closed, all that was acknowledged in it is in the queue already, before any marker.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from hubbub.caches.redis_feed import channel
from hubbub.caches.redis_wire import RedisWire, ScriptFailed
from hubbub.chat.commands import (
    Command,
    DeleteMessage,
    EditMessage,
    MessageCommand,
    OpenChat,
    Opened,
    Outcome,
    Position,
    PostMessage,
)
from hubbub.chat.encoding import MessageItem, encode_chats, encode_message, encode_page
from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey, Message, Page, Role
from hubbub.chat.ports import Entry, Gate, Store, Wants
from hubbub.chat.queued_intake import Posted, Slot
from hubbub.chat.ticket import Ticket

log = logging.getLogger("hubbub.redis")

_LIFETIME_MS = 24 * 3600 * 1000
_OPEN_WITHIN_S = 5.0
_REMEMBERED = 50_000
_ROLES_FOR_S = 5.0
_COUNTS_FOR_S = 4.0
_KEPT = 101  # one above the largest page
_TRIM_AT = 200
_GAPS = 50  # deleted messages, and numbers whose message is still on its way, that a page may meet
_WIDEST = 1000

_TEXTS = {file.stem: file.read_text() for file in sorted((Path(__file__).parent / "scripts").glob("*.lua"))}
_SHARED = _TEXTS.pop("shared")
SCRIPTS = {name: _SHARED + text if name in ("enter", "newest", "version") else text for name, text in _TEXTS.items()}

_process = secrets.token_hex(8)
_counter = itertools.count(1)


def _unique() -> str:
    """A word that was never used before, by any process."""
    return f"{_process}.{next(_counter)}"


_decode_item = msgspec.json.Decoder(MessageItem).decode


class _Application:
    """What is remembered of an application while its version stays the same."""

    __slots__ = ("pages", "roles", "version")

    def __init__(self, version: bytes) -> None:
        self.version = version
        self.roles: dict[int, tuple[float, Role]] = {}
        self.pages: dict[int, tuple[float, bytes]] = {}


class CopiedStore(Store, Protocol):
    """A store that may have copies: ``at`` says how far one must be to answer, see stores.mysql."""

    async def message(self, key: ChatKey, number: int, *, at: Position | None = None) -> Message | None: ...
    async def messages(
        self,
        key: ChatKey,
        *,
        limit: int,
        before: int | None = None,
        after: int | None = None,
        offset: int = 0,
        at: Position | None = None,
    ) -> list[Message]: ...
    async def numbered(self, key: ChatKey, numbers: Sequence[int], *, at: Position | None = None) -> list[Message]: ...


class Seen:
    """What a request has brought along from Redis: its application as it is now, the chat's ``limit`` newest
    messages as scripts/shared.lua gives them, or a number.
    """

    __slots__ = ("application", "limit", "newest", "slot")

    def __init__(self, application: _Application, limit: int, newest: Any, slot: tuple[int, int] | None) -> None:
        self.application = application
        self.limit = limit
        self.newest = newest
        self.slot = slot


class RedisCache:
    """See chat.ports.View, chat.ports.Gate, queued_intake.Numbers and writer.shard.Shown.

    ``publish`` queues a marker; a writer, who opens no chat of its own accord, has none. ``alone`` counts requests
    while Redis can't be reached.
    """

    def __init__(
        self,
        wire: RedisWire,
        store: CopiedStore,
        publish: Callable[[Command], Ticket] | None = None,
        *,
        user_rate: int = 1,
        alone: Gate | None = None,
    ) -> None:
        self._wire = wire
        self._store = store
        self._publish = publish
        self._user_rate = user_rate
        self._alone = alone
        self._applications: dict[str, _Application] = {}
        self._existing: set[ChatKey] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.hits = 0  # lists of newest messages that Redis had
        self.misses = 0
        self._trimmer = Trimmer()

    # Keys --------------------------------------------------------------------------------------------------------

    def _chat(self, key: ChatKey) -> str:
        return f"{self._wire.run}:c:{key.token}:{key.number}"

    def _announced(self, key: ChatKey) -> str:
        return f"{self._wire.run}:s:{key.token}:{key.number}"

    def _version(self, token: str) -> str:
        return f"{self._wire.run}:a:{token}"

    # Gate --------------------------------------------------------------------------------------------------------

    async def enter(self, user_id: int, mark: str = "", wants: Wants | None = None) -> Entry:
        run = self._wire.run
        keys = f"{run}:u:{user_id}", f"{run}:l:{user_id}:{int(time.time())}"
        if wants is None:
            reply = await self._ask("enter", 2, *keys, _unique())
        else:
            known = self._applications.get(wants.chat.token)
            what: str | int = wants.newest or ""
            if wants.number and known is not None and user_id in known.roles:
                # The number is given only if the user is still known by this mark and the application by this version.
                what = "number"
            reply = await self._ask(
                "enter",
                4,
                *keys,
                self._version(wants.chat.token),
                self._chat(wants.chat),
                _unique(),
                what,
                mark.rpartition(":")[2],
                b"" if known is None else known.version,
            )
        if reply is None:
            if self._alone is not None:
                await self._alone.enter(user_id)
            return Entry("")
        if reply[1] > self._user_rate:
            raise RateLimited(
                f"You may send {self._user_rate} requests a second. Slow down.", limit=self._user_rate, retry_after=1
            )
        mark = f"{run}:{reply[0].decode()}"
        if wants is None:
            return Entry(mark)
        slot = None
        newest = reply[3]
        if wants.number:
            slot, newest = (None if newest is None else (int(newest[0]), int(newest[1]))), None
        return Entry(mark, Seen(self._remember(wants.chat.token, reply[2]), wants.newest, newest, slot))

    async def _ask(self, name: str, keys: int, *words: str | bytes | int) -> Any:
        """What the script says; None while Redis can't be asked."""
        try:
            return await self._wire.script(name, keys, *words)
        except Unavailable:
            return None

    async def sessions_changed(self, user_id: int) -> None:
        await self._wire.call("SET", f"{self._wire.run}:u:{user_id}", _unique(), "EX", 86400)

    # Applications ------------------------------------------------------------------------------------------------

    async def application_changed(self, token: str) -> None:
        """What processes remember of the application is out of date from now on.

        Raises:
            Unavailable: they can't be told now.
        """
        await self._wire.call("SET", self._version(token), _unique(), "EX", 86400)

    async def _application(self, token: str, seen: object) -> _Application | None:
        """None when Redis can't say what is up to date."""
        if isinstance(seen, Seen):
            return seen.application
        version = await self._ask("version", 1, self._version(token), _unique())
        return None if version is None else self._remember(token, version)

    def _remember(self, token: str, version: bytes) -> _Application:
        application = self._applications.get(token)
        if application is None or application.version != version:
            if len(self._applications) >= _REMEMBERED:
                self._applications.clear()
            application = self._applications[token] = _Application(version)
        return application

    async def role(self, token: str, user_id: int, seen: object = None) -> Role | None:
        application = await self._application(token, seen)
        now = time.monotonic()
        if application is not None:
            until, role = application.roles.get(user_id, (0.0, None))
            if role is not None and now < until:
                return role
        role = await self._store.role(token, user_id)
        if role is not None and application is not None:
            application.roles[user_id] = now + _ROLES_FOR_S, role
        return role

    async def exists(self, key: ChatKey) -> bool:
        if key in self._existing:
            return True
        if await self._store.chat(key) is None:
            return False
        if len(self._existing) >= _REMEMBERED:
            self._existing.clear()
        self._existing.add(key)
        return True

    async def chats(self, token: str, limit: int, seen: object = None) -> bytes:
        application = await self._application(token, seen)
        now = time.monotonic()
        if application is not None:
            until, page = application.pages.get(limit, (0.0, b""))
            if now < until:
                return page
        page = encode_chats(await self._store.chats(token, offset=0, limit=limit))
        if application is not None:
            application.pages[limit] = now + _COUNTS_FOR_S, page
        return page

    # Numbers -----------------------------------------------------------------------------------------------------

    async def announce_new_chat(self, token: str) -> str:
        """Must come before the chat is made; ``new_chat`` takes what this returns."""
        guard = f"{self._wire.run}:g:{token}:{_unique()}"
        await self._wire.call("SET", guard, 1, "PX", 5000)
        return guard

    async def new_chat(self, key: ChatKey, guard: str) -> None:
        if guard.startswith(f"{self._wire.run}:"):
            await self._wire.script("fresh", 3, self._chat(key), self._announced(key), guard, _LIFETIME_MS)

    async def reserve(
        self, key: ChatKey, created_at: int, *, claim: tuple[int, str, bytes] | None = None, seen: object = None
    ) -> Slot | Posted:
        """A number above all that were ever given in this chat, and given to nobody else.

        ``claim`` is a sender, an Idempotency-Key and the body's hash: then the number is the key's, the same for every
        try; or the number and hash that the store has for the key.

        Raises:
            Unavailable: the chat can't be opened now.
        """
        if isinstance(seen, Seen) and seen.slot is not None:
            return Slot(*seen.slot, created_at)
        field, looked, value = "", "", ""
        if claim is not None:
            field, value = f"k:{claim[0]}:{claim[1]}", f"{created_at} {claim[2].hex()}"
        until = time.monotonic() + _OPEN_WITHIN_S
        while True:
            reply = await self._wire.script("reserve", 1, self._chat(key), field, looked, value)
            kind = reply[0]
            if kind == b"new":
                return Slot(int(reply[1]), reply[2], created_at)
            if kind == b"known":
                number, first_at, body_hash = reply[2].split(b" ")
                if claim is not None and body_hash != claim[2].hex().encode():
                    return Posted(int(number), bytes.fromhex(body_hash.decode()))
                return Slot(int(reply[1]), int(number), int(first_at), retried=True)
            if kind == b"look" and claim is not None:
                stored = await self._store.posted(key, claim[0], claim[1])
                if stored is not None:
                    return Posted(*stored)
                looked = reply[1].decode()
                continue
            await self._open(key)
            if time.monotonic() > until:
                raise Unavailable("The chat is being prepared for new messages. Try again a little later.")

    async def _open(self, key: ChatKey) -> None:
        """Have the chat opened, and wait a little."""
        candidate = _unique()
        announced = await self._wire.script("want", 2, self._chat(key), self._announced(key), candidate)
        if announced == b"announced" and self._publish is not None:
            await self._publish(OpenChat(key, candidate))
        if announced != b"open":
            await asyncio.sleep(0.01)

    async def open(self, key: ChatKey) -> None:
        """Return when the chat is open.

        Raises:
            Unavailable: it can't be opened now.
        """
        until = time.monotonic() + _OPEN_WITHIN_S
        while not await self._wire.call("HEXISTS", self._chat(key), "e"):
            await self._open(key)
            if time.monotonic() > until:
                raise Unavailable("The chat is being prepared for changes. Try again a little later.")

    def settle(self, post: PostMessage, *, retried: bool) -> asyncio.Future[int]:
        """The post is in the queue for good: 1 when it is shown from now on, 0 when its epoch is over."""
        field = f"k:{post.sender_id}:{post.key}" if retried else ""
        return self._wire.script(
            "settle",
            1,
            self._chat(post.chat),
            post.epoch,
            post.number,
            _item(_posted(post)),
            _LIFETIME_MS,
            field,
            channel(post.chat),
        )

    async def changed(self, command: EditMessage | DeleteMessage) -> None:
        """The change is in the queue for good: it is shown from now on."""
        over = f"{command.op} d".encode()
        if isinstance(command, EditMessage):
            message = await self.message(command.chat, command.number)
            if message is None:
                return
            edited = msgspec.structs.replace(message, body=command.body, edited_at=command.edited_at)
            over = f"{command.op} e ".encode() + _item(edited)
        await self._wire.script("change", 1, self._chat(command.chat), command.number, over, channel(command.chat))

    # Messages ----------------------------------------------------------------------------------------------------

    async def newest(self, key: ChatKey, limit: int, seen: object = None) -> Page:
        if isinstance(seen, Seen) and seen.limit == limit:
            found = seen.newest
        else:
            try:
                found = await self._wire.script("newest", 1, self._chat(key), limit)
            except Unavailable:
                self.misses += 1
                return encode_page(await self._store.messages(key, limit=limit + 1), limit)
        self.hits += found is not None
        self.misses += found is None
        if found is None:
            self._open_later(key)
        elif found[0] == 0 or len(found) == 2 * limit + 3:
            shown = found[1 : 2 * limit + 1]
            return Page(
                body=b"[" + b",".join([item.split(b" ", 3)[3] for item in shown[1::2]]) + b"]",
                oldest=shown[-2] if shown else None,
                newest=shown[0] if shown else None,
                more=len(found) > 2 * limit + 1,
            )
        return encode_page(await self.messages(key, limit=limit + 1), limit)

    def _open_later(self, key: ChatKey) -> None:
        """A chat that is read may as well be open; nobody waits for it."""

        async def attempt() -> None:
            try:
                await self._open(key)
            except (Unavailable, ScriptFailed) as error:
                log.info("A chat could not be opened for readers: %s", error)

        if len(self._opening) < 100:
            task = asyncio.get_running_loop().create_task(attempt())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def message(self, key: ChatKey, number: int) -> Message | None:
        """See chat.ports.View. Raises Unavailable when it is not stored and may still be in the queue."""
        while True:
            try:
                chat = self._chat(key)
                floor, item, over, position = await self._wire.call("HMGET", chat, "f", number, f"o:{number}", "p")
            except Unavailable:
                floor = item = over = position = None
            if floor is not None:
                break
            # No hot data, so the store is asked; what it lacks may be on its way, and the chat that opens knows.
            stored = await self._store.message(key, number)
            if stored is not None:
                return stored
            await self.open(key)
        if over is not None:
            item = _covered(over)
            return None if item is None else _message(number, item)
        if item is not None:
            return _message(number, item)
        if number > int(floor):
            return None
        return await self._store.message(key, number, at=_position(position))

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> list[Message]:
        names = [name for number in numbers for name in (number, f"o:{number}")]
        try:
            floor, position, *held = await self._wire.call("HMGET", self._chat(key), "f", "p", *names)
        except Unavailable:
            return await self._store.numbered(key, numbers)
        found, stored = [], []
        for number, item, over in zip(numbers, held[::2], held[1::2], strict=True):
            shown = item if over is None else _covered(over)
            if shown is not None:
                found.append(_message(number, shown))
            elif over is None and (floor is None or number <= int(floor)):
                stored.append(number)
        return found + await self._store.numbered(key, stored, at=_position(position))

    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> list[Message]:
        try:
            page = await self._window(key, limit, before, after, offset)
            if page is not None:
                return page
            fields = await self._wire.call("HGETALL", self._chat(key))
        except Unavailable:
            fields = []
        if not fields:
            return await self._store.messages(key, limit=limit, before=before, after=after, offset=offset)
        held = dict(zip(fields[::2], fields[1::2], strict=True))
        floor = int(held[b"f"])
        at = _position(held.get(b"p"))
        over = {int(name[2:]): _covered(item) for name, item in held.items() if name.startswith(b"o:")}
        hot = {int(name): item for name, item in held.items() if name.isdigit()}
        hot |= {number: item for number, item in over.items() if item is not None and number in hot}
        hot = {number: item for number, item in hot.items() if over.get(number, b"") is not None}
        in_range = sorted(
            number for number in hot if (before is None or number < before) and (after is None or number > after)
        )
        if after is not None:
            return await self._merge_up(key, limit, after, floor, hot, over, in_range, at)
        above = [number for number in in_range if number > floor]
        newest_first = above[::-1][offset : offset + limit]
        found = [_message(number, hot[number]) for number in newest_first]
        if len(found) == limit:
            return found
        # What is left of the page lies at the floor or below: the store has it, with changes under way and stragglers.
        straggling = [number for number in in_range if number <= floor]
        wanted = limit - len(found)
        skipped = max(0, offset - len(above))
        extra = len(over) + len(straggling)
        stored = await self._store.messages(
            key,
            limit=wanted + skipped + extra if skipped <= 1000 else wanted + extra,
            before=min(floor + 1, before if before is not None else floor + 1),
            offset=0 if skipped <= 1000 else skipped,
            at=at,
        )
        merged = _merged(stored, over, {number: hot[number] for number in straggling})
        merged.sort(key=lambda message: -message.number)
        start = skipped if skipped <= 1000 else 0
        return found + merged[start : start + wanted]

    async def _window(
        self, key: ChatKey, limit: int, before: int | None, after: int | None, offset: int
    ) -> list[Message] | None:
        """The page, where all of it lies above the floor and near where it starts; None where it may not.

        The chat's hash may hold all that is queued: most pages must do without reading it whole.
        """
        chat = self._chat(key)
        state = await self._wire.call("HMGET", chat, "f", "n")
        span = offset + limit + _GAPS
        if state[0] is None or span > _WIDEST:
            return None
        floor, last = int(state[0]), int(state[1])
        if after is not None:
            numbers = range(after + 1, min(last, after + span) + 1)
        else:
            highest = last if before is None else min(last, before - 1)
            numbers = range(highest, max(floor, highest - span), -1)
        if not numbers or min(numbers) <= floor:
            return None
        count = len(numbers)
        reply = await self._wire.call("HMGET", chat, "f", *numbers, *(f"o:{number}" for number in numbers))
        if reply[0] != state[0]:  # the floor has risen over some of them meanwhile
            return None
        found = []
        for number, item, over in zip(numbers, reply[1 : count + 1], reply[count + 1 :], strict=True):
            shown = item if item is None or over is None else _covered(over)
            if shown is not None:
                found.append((number, shown))
        page = [_message(number, item) for number, item in found[offset : offset + limit]]
        if after is not None:
            return page[::-1] if len(page) == limit or numbers[-1] == last else None
        return page if len(page) == limit else None

    async def _merge_up(
        self,
        key: ChatKey,
        limit: int,
        after: int,
        floor: int,
        hot: dict[int, bytes],
        over: dict[int, bytes | None],
        in_range: Sequence[int],
        at: Position | None,
    ) -> list[Message]:
        stored: list[Message] = []
        if after < floor:
            rows = await self._store.messages(key, limit=limit + len(over), after=after, at=at)
            stored = [row for row in rows if row.number <= floor]
        merged = _merged(stored, over, {number: hot[number] for number in in_range[:limit]})
        merged.sort(key=lambda message: message.number)
        return merged[:limit][::-1]

    # The writer's side -------------------------------------------------------------------------------------------

    async def seed(self, command: OpenChat, opened: Opened, position: Position) -> bool:
        """Open the chat with what the store has. False when another has, or nothing vouches for this marker."""
        floor = opened.newest[-1].number - 1 if len(opened.newest) == _KEPT else 0
        items = [word for message in opened.newest for word in (message.number, _item(message))]
        seeded = await self._wire.script(
            "seed",
            2,
            self._chat(command.chat),
            self._announced(command.chat),
            command.candidate,
            opened.epoch,
            opened.last_number,
            floor,
            _LIFETIME_MS,
            _word(position),
            *items,
        )
        return bool(seeded)

    async def stored(
        self, chat: ChatKey, commands: Sequence[tuple[MessageCommand, Outcome]], position: Position
    ) -> None:
        """The store has these commands of one chat; a post with the outcome None had been stored before.

        Raises:
            Unavailable: it can't be said now. The chat stays right; it holds more than it needs.
        """
        words: list[str | bytes | int] = []
        numbers: list[int] = []
        for command, outcome in commands:
            if isinstance(command, PostMessage):
                if outcome == command.number:
                    numbers.append(command.number)
                    words += ("p", command.number, _item(_posted(command)))
                elif outcome is not None:
                    words += ("r", command.number, "")
                if command.key is not None:
                    words += ("k", f"k:{command.sender_id}:{command.key}", "")
            elif isinstance(command, EditMessage | DeleteMessage):
                words += ("e" if isinstance(command, EditMessage) else "d", command.number, command.op)
        floor, gone = self._trimmer.stored(chat, numbers)
        unknown = await self._wire.script("applied", 1, self._chat(chat), floor, _word(position), *words, *gone)
        if unknown:
            refreshed: list[str | bytes | int] = []
            for number in unknown:
                message = await self._store.message(chat, int(number))
                refreshed += ("r", number, b"" if message is None else _item(message))
            await self._wire.script("applied", 1, self._chat(chat), 0, _word(position), *refreshed)


def _posted(post: PostMessage) -> Message:
    return Message(post.number, post.sender_id, post.sender_name, post.body, post.created_at)


class Trimmer:
    """Which of a chat's stored messages the store's lists can take over: all but the newest hundred.

    Knows only what it was told itself. What an earlier writer left untold stays in Redis until the chat expires, which
    costs memory and nothing else.
    """

    def __init__(self) -> None:
        self._stored: dict[ChatKey, list[int]] = {}

    def stored(self, key: ChatKey, numbers: Sequence[int]) -> tuple[int, list[str | bytes | int]]:
        """The chat's new floor, or 0, and the words that say what goes."""
        if len(self._stored) > _REMEMBERED:
            self._stored.clear()
        kept = self._stored.setdefault(key, [])
        kept.extend(numbers)
        if len(kept) < _TRIM_AT:
            return 0, []
        kept.sort()
        floor = kept[-_KEPT] - 1
        gone = [number for number in kept if number <= floor]
        del kept[: len(gone)]
        return floor, [word for number in gone for word in ("t", number, "")]


def _word(position: Position) -> str:
    return f"{position.shard}:{position.transactions}"


def _position(field: bytes | None) -> Position | None:
    if not field:
        return None
    shard, _, transactions = field.partition(b":")
    return Position(int(shard), int(transactions))


def _item(message: Message) -> bytes:
    return b"%d %d %d %b" % (
        message.sender_id,
        message.created_at,
        message.edited_at or 0,
        encode_message(message),
    )


def _message(number: int, item: bytes) -> Message:
    sender_id, created_at, edited_at, encoded = item.split(b" ", 3)
    shown = _decode_item(encoded)
    return Message(number, int(sender_id), shown.sender_name, shown.body, int(created_at), int(edited_at) or None)


def _covered(over: bytes) -> bytes | None:
    """The edited item that lies over a message; None when it is being deleted."""
    _, kind, item = (over + b" ").split(b" ", 2)
    return item[:-1] if kind == b"e" else None


def _merged(stored: Sequence[Message], over: dict[int, bytes | None], hot: dict[int, bytes]) -> list[Message]:
    """The stored messages under what is newer; a number is there once."""
    found = {message.number: message for message in stored}
    found |= {number: _message(number, item) for number, item in hot.items()}
    for number, item in over.items():
        if number in found:
            if item is None:
                del found[number]
            else:
                found[number] = _message(number, item)
    return list(found.values())
