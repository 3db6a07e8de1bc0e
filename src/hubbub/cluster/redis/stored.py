"""The writer's side of Redis: opens chats, and updates them with what is stored. Late updates change nothing, see
redis.keys."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hubbub.chat.commands import Outcome
from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.cluster.protocol import (
    AppliedBefore,
    Barrier,
    Delete,
    Edit,
    Failed,
    Gone,
    OpenChat,
    Opened,
    Position,
    Post,
    Repeated,
    Straggler,
)
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.entries import entry_of
from hubbub.cluster.redis.keys import LIFETIME_MS, STORED_KEY_MS, STORED_LIFETIME_MS
from hubbub.cluster.redis.numbers import chat_gone, post_entry
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.store import MySqlStore

_KEPT = 101  # one above the largest page


class Stored:
    """Updates Redis with what the store has: see cluster.writer.ReadModel. Every async method raises Unavailable when
    Redis can't be updated now: what Redis shows is still right then, but it keeps more than it needs."""

    def __init__(self, servers: Servers, store: MySqlStore) -> None:
        self._servers = servers
        self._store = store

    def _client(self, token: str, generation: int) -> RedisClient:
        """The client, if its generation is the one in which something was announced. Raises Unavailable."""
        client = self._servers.of(token)
        if client.named().generation != generation:
            raise Unavailable("That was announced in another generation of Redis.")
        return client

    async def seed(self, command: OpenChat, opened: Opened, position: Position) -> bool:
        """Seed the chat as pending with what the store has. Returns False if it is seeded or live already, was deleted,
        or the marker's announcement is lost."""
        client = self._client(command.chat.token, command.generation)
        names = client.named()
        floor = opened.newest[-1][0].number - 1 if len(opened.newest) == _KEPT else 0
        entries = [word for message, order in opened.newest for word in (message.number, entry_of(message, order))]
        # Only in the data set in which the marker was announced: an old copy has old announcements.
        seeded = await client.vouched(
            "seed",
            3,
            names.chat(command.chat),
            names.old(command.chat),
            names.announced(command.chat),
            command.candidate,
            opened.epoch,
            opened.last_number,
            floor,
            LIFETIME_MS,
            _word(position),
            *entries,
        )
        return bool(seeded)

    def slot_of(self, command: OpenChat) -> int:
        return self._servers.slot_of(command.chat.token)

    async def live(self, command: OpenChat, epoch: int) -> None:
        """Make the chat live: ``epoch`` is the live one in the store."""
        client = self._client(command.chat.token, command.generation)
        await client.script("live", 1, client.named().chat(command.chat), epoch)

    async def gone(self, chat: ChatKey) -> None:
        """Mark the chat as deleted."""
        await chat_gone(self._servers.of(chat.token), chat)

    async def renamed(self, chat: ChatKey, user_id: int, name: str) -> None:
        """Set the sender's name in the entries of the user's messages."""
        client = self._servers.of(chat.token)
        names = client.named()
        await client.script("renamed", 2, names.chat(chat), names.old(chat), user_id, msgspec.json.encode(name))

    async def drained(self, shard: int, barrier: Barrier) -> None:
        client = self._servers.clients[barrier.slot]
        names = client.named()
        if names.generation == barrier.generation:
            await client.script("drained", 2, names.drained(shard), names.barrier(shard), barrier.candidate)

    async def stored(
        self, chat: ChatKey, commands: Sequence[tuple[Post | Edit | Delete, Outcome]], position: Position
    ) -> None:
        """Update one chat with commands that the store has applied."""
        words: list[str | bytes | int] = []
        stored: list[int] = []
        client = self._servers.of(chat.token)
        names = client.named()
        keys = [names.chat(chat), names.old(chat), names.drained(position.shard)]
        commands = [(command, _as_told(command, outcome)) for command, outcome in commands]
        before = [command for command, outcome in commands if isinstance(outcome, AppliedBefore)]
        if before:
            await self._as_it_is(chat, before, position)
        for command, outcome in commands:
            if isinstance(outcome, Failed | Straggler | Gone | AppliedBefore):
                continue
            if isinstance(command, Post):
                words += _words(command, outcome)
                if command.key is not None:
                    keys.append(names.idempotency(chat, command.sender_id, command.key))
                    stored.append(outcome.number if isinstance(outcome, Repeated) else command.number)
            else:
                words += ("e" if isinstance(command, Edit) else "d", command.number, command.order, "")
        unknown = await self._applied(client, keys, stored, position, words)
        if unknown:
            await self._refresh(chat, [int(number) for number in unknown], position)

    async def _as_it_is(self, chat: ChatKey, before: Sequence[Post | Edit | Delete], position: Position) -> None:
        """Update the chat for commands that had been applied before. Since then, each may have been set aside, sent
        again or changed, so only what the store says now counts."""
        numbers = sorted({command.number for command in before})
        rows = {message.number: (message, order) for message, order in await self._store.ordered(chat, numbers)}
        gone = [number for number in numbers if number not in rows]
        aside = await self._store.set_aside(chat, gone) if gone else set()
        words: list[str | bytes | int] = []
        sent_again: list[str | bytes | int] = []
        for command in before:
            number = command.number
            if number not in rows:
                if isinstance(command, Delete) and number not in aside:
                    words += ("d", number, command.order, "")
                continue
            message, order = rows[number]
            if isinstance(command, Post) and command.epoch:
                words += ("p", number, entry_of(message, order), command.epoch)
            elif isinstance(command, Post):
                sent_again += ("a", number, entry_of(message, order), "")
            elif isinstance(command, Edit) and command.order <= order:
                words += ("e", number, command.order, "")
        client = self._servers.of(chat.token)
        names = client.named()
        keys = names.chat(chat), names.old(chat), names.drained(position.shard)
        if sent_again:  # at the position from before the store was read: later updates must not be undone
            await self._applied(client, keys, [], position, sent_again)
        if words:  # at a position from after that: the rows may be newer than the first position
            now = position._replace(transactions=await self._store.transactions(position.shard))
            unknown = await self._applied(client, keys, [], now, words)
            if unknown:
                await self._refresh(chat, [int(number) for number in unknown], now)

    async def _refresh(self, chat: ChatKey, numbers: Sequence[int], position: Position) -> None:
        """Update these entries with the messages as the store has them now."""
        found = {
            message.number: entry_of(message, order) for message, order in await self._store.ordered(chat, numbers)
        }
        words: list[str | bytes | int] = []
        for number in numbers:
            words += ("r", number, found.get(number, ""), "")
        client = self._servers.of(chat.token)
        names = client.named()
        keys = names.chat(chat), names.old(chat), names.drained(position.shard)
        await self._applied(client, keys, [], position, words)

    @staticmethod
    async def _applied(
        client: RedisClient,
        keys: Sequence[str],
        stored: Sequence[int],
        position: Position,
        words: Sequence[str | bytes | int],
    ) -> list[bytes]:
        """Run scripts/applied.lua. ``stored`` are the numbers of the Idempotency-Keys, which follow the first three
        keys. Returns the numbers that must be read from the store."""
        rest = LIFETIME_MS, STORED_LIFETIME_MS, STORED_KEY_MS, len(stored), *stored
        unknown: list[bytes] = await client.script("applied", len(keys), *keys, _word(position), *rest, *words)
        return unknown


def _as_told(command: Post | Edit | Delete, outcome: Outcome) -> Outcome:
    """The outcome to use. A post queued by a version before 0.2 lacks its sender's public id, so it is treated as
    applied before: then the message is read from the store."""
    lacking = isinstance(command, Post) and not command.sender_ref and outcome == command.number
    return AppliedBefore() if lacking else outcome


def _words(post: Post, outcome: Outcome) -> tuple[str | bytes | int, ...]:
    """The words of scripts/applied.lua for a post that was applied."""
    if isinstance(outcome, Repeated):  # if its key has another number, this one was never acknowledged
        return ("x", post.number, "", post.epoch) if outcome.number != post.number else ()
    return ("p", post.number, post_entry(post), post.epoch) if post.epoch else ("a", post.number, post_entry(post), "")


def _word(position: Position) -> str:
    return f"{position.shards}:{position.shard}:{position.transactions}"
