"""Reads messages: queued ones from Redis, merged over stored ones. See chat.ports.View.

The order is always: entries first, then the store. An entry is removed only once the store has its message. So a
message whose entry is gone is in the rows that the store returns afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from hubbub.chat.caller import Caller
from hubbub.chat.encoding import encode_chats
from hubbub.chat.errors import ChatError, Unavailable
from hubbub.chat.large_pages import LargePages
from hubbub.chat.model import ChatKey, KeptPage, Message, MessagesRead, Page, Role
from hubbub.cluster.protocol import Position
from hubbub.cluster.publisher import Publisher
from hubbub.cluster.redis.entries import is_deleted, json_of, message_of, messages_of, names_sender
from hubbub.cluster.redis.gate import Seen, unique
from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.numbers import Numbers, position_of
from hubbub.cluster.redis.pages import Application, Applications, NewestPage, Pages, soon
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.store import MySqlStore

log = logging.getLogger("hubbub.redis")

_ROLES_MORE_S = 30.0  # how long an expired role may still be used while it is read again
_ROLES_FOR_S = 5.0  # how long a role is used without reading it again, in case this process missed a change
_COUNTS_FOR_S = 4.0
_VERSION_S = 24 * 3600  # how long Redis keeps the version of an application that exists
_EXISTING = 50_000
_OPENING = 100
_DEEP = 1000  # stored messages that a page may read only to skip them


class _Hot(NamedTuple):
    """Entries of a live chat: ``found`` are those that were asked for, as numbers and entries, ``old`` the old entries.
    ``open`` are the numbers between those found that are given and not shown."""

    floor: int
    at: Position | None
    rest: int
    old: dict[int, bytes]
    found: list[tuple[int, bytes]]
    open: list[int]


class Vouching(Protocol):
    """See cluster.generations."""

    def fresh(self, slot: int, generation: int) -> bool: ...
    async def vouch(self, slot: int, generation: int) -> bool: ...


class RedisView:
    """See chat.ports.View."""

    def __init__(
        self,
        servers: Servers,
        store: MySqlStore,
        numbers: Numbers,
        publisher: Publisher,
        applications: Applications,
        pages: Pages,
        generations: Vouching,
    ) -> None:
        self._generations = generations
        self._servers = servers
        self._store = store
        self._numbers = numbers
        self._publisher = publisher
        self._applications = applications
        self._pages = pages
        self.large_pages = LargePages()
        self._existing: dict[ChatKey, bytes] = {}  # the application's version at which a chat existed
        self._going: set[asyncio.Task[None]] = set()
        self._looking: set[tuple[str, int]] = set()

    # Applications ------------------------------------------------------------------------------------------------

    async def _application(self, token: str) -> Application | None:
        """What is remembered of the application at its current version; None when Redis can't say which that is."""
        client = self._servers.of(token)
        try:
            version = await client.vouched("version", 1, client.named().application(token), unique())
        except Unavailable:
            return None
        return self._applications.at(token, version)

    async def role(self, caller: Caller, token: str) -> Role | None:
        seen = caller.brought
        application = seen.application if isinstance(seen, Seen) else await self._application(token)
        user_id = caller.user.id
        if application is None:
            return await self._store.role(token, user_id)
        known = application.role(user_id)
        if known is not None:
            return known
        until, known = application.roles.get(user_id, (0.0, None))
        if known is not None and time.monotonic() < until + _ROLES_MORE_S:
            self._look_later(application, token, user_id)
            return known  # the version at which it was read is still the current one in Redis
        try:
            return await self._look(application, token, user_id)
        except Unavailable:
            if known is None:
                raise
            return known

    async def _look(self, application: Application, token: str, user_id: int) -> Role | None:
        role = await self._store.role(token, user_id)
        if role is None:
            application.roles.pop(user_id, None)
        else:
            application.roles[user_id] = soon(_ROLES_FOR_S), role
            if not application.kept:
                await self._keep(application, token)
        return role

    async def _keep(self, application: Application, token: str) -> None:
        """Extend the lifetime of the version of an application that exists (see scripts/shared.lua). It does no harm if
        the version has changed by now."""
        client = self._servers.of(token)
        with suppress(Unavailable):
            await client.call("EXPIRE", client.named().application(token), _VERSION_S)
            application.kept = True

    def _look_later(self, application: Application, token: str, user_id: int) -> None:
        """Read the role again in the background: a database that hangs must not hold up users whose role is known."""
        if (token, user_id) in self._looking:
            return
        self._looking.add((token, user_id))

        async def look() -> None:
            try:
                await self._look(application, token, user_id)
            except ChatError as error:
                log.info("A role could not be read again: %s", error.sentence)
                _, known = application.roles.get(user_id, (0.0, None))
                if known is not None:
                    application.roles[user_id] = soon(_ROLES_FOR_S), known
            finally:
                self._looking.discard((token, user_id))

        self._later(look())

    async def exists(self, caller: Caller, key: ChatKey) -> bool:
        seen = caller.brought
        application = seen.application if isinstance(seen, Seen) else await self._application(key.token)
        if application is not None and self._existing.get(key) == application.version:
            return True
        live = isinstance(seen, Seen) and (seen.reserved is not None or isinstance(seen.newest, list))
        if not live and not await self._is_stored(key):
            return False
        if application is not None:
            if len(self._existing) >= _EXISTING:
                self._existing.clear()
            self._existing[key] = application.version
        return True

    async def _is_stored(self, key: ChatKey) -> bool:
        """Whether the store has the chat. While the store can't be reached, a live chat counts as stored."""
        try:
            return await self._store.chat(key) is not None
        except Unavailable:
            with suppress(_NotLive):
                await self._read(key, 1, 1, 1)
                return True
            raise

    async def chats(self, caller: Caller, token: str, limit: int) -> bytes:
        seen = caller.brought
        application = seen.application if isinstance(seen, Seen) else await self._application(token)
        page = None if application is None else application.chats(limit)
        if page is not None:
            return page
        try:
            page = encode_chats(await self._store.chats(token, offset=0, limit=limit))
        except Unavailable:
            if application is None or application.page[0] != limit:
                raise
            return application.page[2]  # with outdated counts, while the database can't be reached
        if application is not None:
            application.page = limit, soon(_COUNTS_FOR_S), page
        return page

    # The newest page ---------------------------------------------------------------------------------------------

    async def newest(self, caller: Caller, key: ChatKey, limit: int) -> Page:
        kept = self.current(caller.brought, key, limit)
        if kept is not None:  # most pages are remembered and current: nothing is read or waited for
            return kept.page
        async with self.large_pages.reading(caller.user.id, limit):
            return await self._newest(caller, key, limit)

    def current(self, brought: object, key: ChatKey, limit: int) -> KeptPage | None:
        """The remembered page, if the gate has brought that it is current, and may be told from (rule 3)."""
        if not isinstance(brought, Seen) or brought.limit != limit or not isinstance(brought.newest, list):
            return None
        if not self._generations.fresh(self._servers.slot_of(key.token), brought.generation):
            return None
        known = self._pages.get(key, brought.newest[0])
        return None if known is None else known.kept

    async def _newest(self, caller: Caller, key: ChatKey, limit: int) -> Page:
        seen = caller.brought
        if isinstance(seen, Seen) and seen.limit == limit and seen.newest is not None:
            found, generation = seen.newest, seen.generation
        else:
            client = self._servers.of(key.token)
            known = self._pages.version(key) if limit == self._pages.limit else b""
            try:
                names = client.named()
                keys = names.chat(key), self._drained(names, key)
                generation = names.generation
                found = await client.vouched("newest", 2, *keys, limit, known)
            except Unavailable:
                return (await self._stored_page(caller, key, limit))._replace(lag=True)
        if isinstance(found, int):
            self._open_later(key)
            page = await self._stored_page(caller, key, limit)
            return page._replace(lag=not found or await self._lags(key, generation))
        if len(found) == 1:
            known_page = self._pages.get(key, found[0])
            if known_page is not None:
                return await self._vouched(known_page.kept.page, key, generation)
            found = []  # this process's page has changed since the request was sent
        elif found[1] and all(map(names_sender, found[3::2])):
            words = found[2:]
            items = [(number, json_of(entry)) for number, entry in zip(words[::2], words[1::2], strict=True)]
            newest = NewestPage(found[0], limit, items)
            if limit == self._pages.limit:
                self._pages.put(key, newest)
            return await self._vouched(newest.kept.page, key, generation)
        return await self.large_pages.encoded(caller.user.id, lambda: self.messages(key, limit=limit + 1), limit)

    async def _stored_page(self, caller: Caller, key: ChatKey, limit: int) -> Page:
        async def read() -> MessagesRead:
            return MessagesRead(await self._store.messages(key, limit=limit + 1))

        return await self.large_pages.encoded(caller.user.id, read, limit)

    async def _vouched(self, page: Page, key: ChatKey, generation: int) -> Page:
        return page._replace(lag=True) if await self._lags(key, generation) else page

    async def _lags(self, key: ChatKey, generation: int) -> bool:
        """Whether other processes may be using another Redis by now (rule 3). A process that was frozen, or had no CPU,
        asks the database first."""
        slot = self._servers.slot_of(key.token)
        return not (self._generations.fresh(slot, generation) or await self._generations.vouch(slot, generation))

    def _drained(self, names: Keys, key: ChatKey) -> str:
        return names.drained(self._publisher.shard_of(key.token))

    def _open_later(self, key: ChatKey) -> None:
        """Open a chat that is read, in the background, so that Redis serves the next reads."""

        async def attempt() -> None:
            try:
                await self._numbers.open(key)
            except ChatError as error:
                log.info("A chat could not be opened for readers: %s", error)

        if len(self._going) < _OPENING:
            self._later(attempt())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    # Some messages -----------------------------------------------------------------------------------------------

    async def message(self, key: ChatKey, number: int) -> MessagesRead:
        return await self.numbered(key, [number])

    async def numbered(self, key: ChatKey, numbers: Sequence[int]) -> MessagesRead:
        if not numbers:
            return MessagesRead([])
        client = self._servers.of(key.token)
        try:
            names = client.named()
            reply = await client.vouched(
                "some", 3, names.chat(key), names.old(key), self._drained(names, key), *numbers
            )
        except Unavailable:
            return MessagesRead(await self._store.numbered(key, numbers), lag=True)
        if isinstance(reply, int):
            lag = not reply or await self._lags(key, names.generation)
            found = await self._store.numbered(key, numbers)
            if not lag and len(found) < len(numbers) and await self._is_live(key):
                return await self.numbered(key, numbers)  # the chat may have given numbers since the first read
            return MessagesRead(found, lag=lag)
        floor, position, *entries = reply
        found, stored, still_open = [], [], []
        for number, entry in zip(numbers, entries, strict=True):
            if entry:
                if not is_deleted(entry):
                    found.append(message_of(number, entry))
                continue
            if entry is not None:
                still_open.append(number)
            if number <= floor:
                stored.append(number)
        if stored:
            found += await self._store.numbered(key, stored, at=position_of(position))
        there = {message.number for message in found}
        still_open = sorted(number for number in still_open if number not in there)
        found = await self._store.with_refs(found)
        return MessagesRead(found, await self._lags(key, names.generation), still_open)

    # Pages of any kind -------------------------------------------------------------------------------------------

    async def messages(
        self, key: ChatKey, *, limit: int, before: int | None = None, after: int | None = None, offset: int = 0
    ) -> MessagesRead:
        keys = self._servers.of(key.token).keys
        still_open: list[int] = []
        try:
            if after is not None:
                found, still_open = await self._above(key, limit, after)
            else:
                found = await self._below(key, limit, before, offset)
            found = await self._store.with_refs(found)
            return MessagesRead(found, keys is None or await self._lags(key, keys.generation), still_open)
        except _NotLive as closed:
            stored = await self._store.messages(key, limit=limit, before=before, after=after, offset=offset)
            lag = closed.lag or keys is None or await self._lags(key, keys.generation)
            gap = after is not None and stored and stored[0].number > after + len(stored)
            if gap and not lag and await self._is_live(key):
                return await self.messages(key, limit=limit, after=after)  # as in ``numbered``
            return MessagesRead(stored, lag)

    async def _is_live(self, key: ChatKey) -> bool:
        """Whether the chat gives numbers. If it is not live now, and was not a moment ago, it has no open numbers."""
        try:
            await self._read(key, 1, 1, 1)
        except _NotLive as closed:
            return closed.lag  # not known: the caller reads again
        return True

    async def _read(self, key: ChatKey, at: int, step: int, wanted: int, *, skipped: int = 0) -> _Hot:
        """Read entries from the number ``at`` on; the first ``skipped`` of them are empty. Raises _NotLive."""
        client = self._servers.of(key.token)
        try:
            names = client.named()
            keys = names.chat(key), names.old(key), self._drained(names, key)
            reply: Any = await client.vouched("read", 3, *keys, at, step, wanted, skipped)
        except Unavailable:
            raise _NotLive(lag=True) from None
        if isinstance(reply, int):
            raise _NotLive(lag=not reply)
        floor, position, rest, old, found, still_open = reply
        return _Hot(
            int(floor),
            position_of(position),
            int(rest),
            {int(number): entry for number, entry in zip(old[::2], old[1::2], strict=True)},
            [(int(number), entry) for number, entry in zip(found[::2], found[1::2], strict=True)],
            still_open,
        )

    async def _below(self, key: ChatKey, limit: int, before: int | None, offset: int) -> list[Message]:
        """The messages below a number, newest first: the entries in slices, then the store's messages, merged with the
        old entries."""
        if before is not None and before <= 1:
            return []
        entries: list[tuple[int, bytes]] = []
        at = 0 if before is None else before - 1
        while True:
            skipped = max(0, offset - len(entries))
            hot = await self._read(key, at, -1, offset + limit - len(entries), skipped=skipped)
            entries += hot.found
            if not hot.rest or len(entries) == offset + limit:
                break
            at = hot.rest
        found = await messages_of(entries[offset:])
        if len(found) == limit:
            return found
        # The floor may have risen between two slices. Everything above the last slice's first number is read already.
        top = min(hot.floor, at) + 1 if at else hot.floor + 1
        old = {number: entry for number, entry in hot.old.items() if number < top and entry}
        wanted, skipped = limit - len(found), max(0, offset - len(entries))
        # The store has rows that readers must not see, and lacks messages that they must see. The page's start in the
        # store lies between the offset less all the latter, and the offset plus all the former.
        unstored = sum(entry.startswith(b"+") for entry in old.values())
        start = skipped - unstored if skipped - unstored > _DEEP else 0
        many = wanted + skipped - start + len(old)
        stored = await self._store.messages(key, limit=many, before=top, offset=start, at=hot.at)
        if not stored and start:
            return found
        first = stored[0].number if start else top
        last = stored[-1].number if len(stored) == many else 0
        rank = start + sum(
            entry.startswith(b"+") - is_deleted(entry) for number, entry in old.items() if number > first
        )
        page = _over(stored, {number: entry for number, entry in old.items() if last <= number <= first})
        return found + page[skipped - rank :][:wanted]

    async def _above(self, key: ChatKey, limit: int, after: int) -> tuple[list[Message], list[int]]:
        """The next messages above a number, newest first, and the numbers that are given and not shown. It reads in
        slices, from each first the store's part and then the entries."""
        found: list[Message] = []
        still_open: set[int] = set()
        while len(found) < limit:
            hot = await self._read(key, after + 1, 1, limit - len(found))
            still_open.update(number for number, entry in hot.old.items() if number > after and not entry)
            still_open.update(hot.open)
            if after < hot.floor:
                old = {number: entry for number, entry in hot.old.items() if number > after and entry}
                many = limit - len(found) + len(old)
                rows = await self._store.messages(key, limit=many, after=after, at=hot.at)
                if len(rows) == many:  # the store may have more, which come before any entry
                    old = {number: entry for number, entry in old.items() if number <= rows[0].number}
                    found += _over([row for row in rows if row.number <= hot.floor], old)[::-1]
                    if rows[0].number <= hot.floor:
                        after = rows[0].number
                        continue
                else:
                    found += _over([row for row in rows if row.number <= hot.floor], old)[::-1]
            found += await messages_of(hot.found)
            if not hot.rest:
                break
            after = hot.rest - 1
        still_open.difference_update(message.number for message in found)
        return found[:limit][::-1], sorted(still_open)


class _NotLive(Exception):
    """The chat is not live, or Redis can't be reached: only the store can answer. ``lag``: it may be behind."""

    def __init__(self, *, lag: bool) -> None:
        super().__init__()
        self.lag = lag


def _over(stored: Sequence[Message], old: dict[int, bytes]) -> list[Message]:
    """The stored messages with old entries in their place where there are any, newest first, each number once."""
    found = {message.number: message for message in stored}
    for number, entry in old.items():
        if is_deleted(entry):
            found.pop(number, None)
        else:
            found[number] = message_of(number, entry)
    return sorted(found.values(), key=lambda message: -message.number)
