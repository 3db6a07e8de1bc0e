"""Gives numbers and orders, and shows queued commands: the API process's side of rules 3 to 7."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from hubbub.chat.encoding import encode_item
from hubbub.chat.errors import NotFound, Unavailable
from hubbub.chat.model import ChatKey, Message
from hubbub.cluster.protocol import Delete, Edit, OpenChat, Position, Post, order_of, place_of
from hubbub.cluster.publisher import Publisher
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.entries import deleted, encoded_entry, entry_of, json_of, message_of
from hubbub.cluster.redis.gate import unique
from hubbub.cluster.redis.keys import GONE_MS, KEY_MS, LIFETIME_MS
from hubbub.cluster.redis.pages import Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.cluster.store import MySqlStore

_OPEN_WITHIN_S = 5.0
_ASK_AGAIN_S = 0.01
NO_CHAT = "There is no such chat in this application."
_NO_MESSAGE = "There is no such message in this chat."


class Slot(NamedTuple):
    """A number for a message, and the generation and epoch that gave it. ``created_at`` is the time of the first try
    with its Idempotency-Key; ``shown`` is True when that try was shown."""

    generation: int
    epoch: int
    number: int
    created_at: int
    shown: bool = False


class Posted(NamedTuple):
    """The number and the body's hash of an earlier post with the same Idempotency-Key."""

    number: int
    body_hash: bytes


class Claim(NamedTuple):
    """An Idempotency-Key of a sender, and the hash of the body that was sent with it."""

    sender_id: int
    key: str
    body_hash: bytes


class Ordered(NamedTuple):
    """A change's order, and the message as readers see it now."""

    generation: int
    order: int
    message: Message


class Confirmed(NamedTuple):
    """A command that the queue has confirmed, with the generation that numbered it; ``entry`` is what is shown."""

    command: Post | Edit | Delete
    generation: int
    entry: bytes


class Numbers:
    def __init__(self, servers: Servers, store: MySqlStore, publisher: Publisher, pages: Pages) -> None:
        self._servers = servers
        self._store = store
        self._publisher = publisher
        self._pages = pages

    # Applications and chats --------------------------------------------------------------------------------------

    async def announce(self, token: str) -> str:
        """Must be called before an application is changed; returns the guard for ``new_chat``.

        Raises:
            Unavailable: Redis could not be told of the change.
        """
        client = self._servers.of(token)
        guard = client.named().guard(token, unique())
        await client.call("SET", guard, 1, "PX", 5000)
        return guard

    async def new_chat(self, key: ChatKey, guard: str) -> None:
        client = self._servers.of(key.token)
        names = client.named()
        if guard.startswith(f"{names.generation}:"):
            await client.script("fresh", 3, names.chat(key), names.announced(key), guard, LIFETIME_MS)

    async def chat_deleted(self, key: ChatKey) -> None:
        """Remove a chat from Redis that was deleted from the store. Raises Unavailable."""
        await chat_gone(self._servers.of(key.token), key)

    async def application_changed(self, token: str) -> None:
        """Make what all processes remember of the application out of date.

        Raises:
            Unavailable: Redis can't be updated now.
        """
        await new_version(self._servers.of(token), token)

    # Numbers -----------------------------------------------------------------------------------------------------

    async def reserve(self, key: ChatKey, created_at: int, claim: Claim | None) -> Slot | Posted:
        """Take a number that is higher than all numbers ever given in this chat. With a claim, every try with its key
        gets the same number, or the number and hash of an earlier post with the key.

        Raises:
            NotFound: the chat was deleted.
            Unavailable: the chat can't be opened now, Redis is too full, or can't be reached.
        """
        until = time.monotonic() + _OPEN_WITHIN_S
        looked = ""
        client = self._servers.of(key.token)
        while True:
            if not client.takes_numbers:
                raise Unavailable("Redis is nearly full. Nothing was stored; send it again later.", retry_after=5)
            names = client.named()
            keys = [names.chat(key)]
            if claim is not None:
                keys.append(names.idempotency(key, claim.sender_id, claim.key))
            body_hash = "" if claim is None else claim.body_hash.hex()
            reply = await client.vouched("number", len(keys), *keys, looked, created_at, body_hash, KEY_MS)
            kind = reply[0]
            if kind == b"new":
                return Slot(names.generation, int(reply[1]), int(reply[2]), created_at)
            if kind == b"known" and claim is not None:
                _, epoch, number, first_at, first_hash, shown = reply
                if first_hash.decode() != body_hash:
                    return Posted(int(number), bytes.fromhex(first_hash.decode()))
                return Slot(names.generation, int(epoch), int(number), int(first_at), bool(shown))
            if kind == b"look" and claim is not None:
                stored = await self._store.posted(key, claim.sender_id, claim.key)
                if stored is not None:
                    return Posted(*stored)
                looked = reply[1].decode()
                continue
            await self._open(client, key)
            if time.monotonic() > until:
                raise Unavailable("The chat is being prepared for new messages. Try again a little later.")

    async def release(self, key: ChatKey, slot: Slot, claim: Claim | None) -> None:
        """Give back a number that was never sent. If that fails, the number becomes a gap, and nothing is lost."""
        client = self._servers.of(key.token)
        if client.keys is None or client.keys.generation != slot.generation:
            return
        keys = [client.keys.chat(key)]
        if claim is not None:
            keys.append(client.keys.idempotency(key, claim.sender_id, claim.key))
        try:
            await client.script("release", len(keys), *keys, slot.epoch, slot.number)
        except Unavailable:
            return

    async def order(self, key: ChatKey, number: int) -> Ordered:
        """Give a change its place among all changes of the chat, and read the message that it changes.

        Raises:
            NotFound: there is no such message.
            Unavailable: the chat can't be opened now, or too many changes wait for the store.
        """
        until = time.monotonic() + _OPEN_WITHIN_S
        client = self._servers.of(key.token)
        while True:
            names = client.named()
            reply = await client.vouched("order", 2, names.chat(key), names.old(key), number)
            if reply[0] == b"full":
                raise Unavailable("Too many changes of old messages wait for the database. Try again later.")
            if reply[0] == b"new":
                _, epoch, place, position, entry = reply
                if entry:
                    (message,) = await self._store.with_refs([message_of(number, entry)])
                else:
                    stored = await self._store.message(key, number, at=position_of(position))
                    if stored is None:
                        raise NotFound(_NO_MESSAGE)
                    message = stored
                return Ordered(names.generation, order_of(int(epoch), int(place)), message)
            if reply[0] == b"missing":
                raise NotFound(_NO_MESSAGE)
            await self._open(client, key)
            if time.monotonic() > until:
                raise Unavailable("The chat is being prepared for changes. Try again a little later.")

    async def open(self, key: ChatKey) -> None:
        """Ask for the chat to be opened; a writer does that a little later. Raises NotFound, Unavailable."""
        await self._open(self._servers.of(key.token), key, wait=False)

    async def _open(self, client: RedisClient, key: ChatKey, *, wait: bool = True) -> None:
        """Ask for the chat to be opened, and with ``wait`` wait a little."""
        names = client.named()
        candidate = unique()
        announced = await client.script("want", 2, names.chat(key), names.announced(key), candidate)
        if announced == b"gone":
            raise NotFound(NO_CHAT)
        if announced == b"announced":
            await self._publisher.accept(OpenChat(key, candidate, names.generation))
        if wait and announced != b"open":
            await asyncio.sleep(_ASK_AGAIN_S)

    # Showing -----------------------------------------------------------------------------------------------------

    async def show(self, slot: int, confirmed: Sequence[Confirmed]) -> list[bool]:
        """Show confirmed commands, all of one Redis server. Returns for each whether it is shown: if so, its epoch is
        live in the generation that numbered it, and the command may be acknowledged.

        Raises:
            Unavailable: it is not known whether they are shown, or they are shown in another data set.
        """
        client = self._servers.clients[slot]
        names = client.named()
        keys: dict[str, int] = {}

        def at(name: str) -> int:
            return keys.setdefault(name, len(keys) + 1)

        words: list[str | bytes | int] = []
        for command, _, entry in confirmed:
            chat = command.chat
            named = names.of(chat)
            if isinstance(command, Post):
                key = 0
                if command.key is not None:
                    key = at(names.idempotency(chat, command.sender_id, command.key))
                extra, kind, epoch = key, "p", command.epoch
            else:
                epoch, extra = place_of(command.order)
                kind = "e" if isinstance(command, Edit) else "d"
            words += (kind, at(named.chat), at(named.old), extra, epoch, command.number, entry, named.channel)
        versions = await client.vouched("show", len(keys), *keys, LIFETIME_MS, *words)
        results = []
        for (command, generation, entry), version in zip(confirmed, versions, strict=True):
            shown = bool(version) and generation == names.generation
            if shown and version != b"=" and isinstance(command, Post):
                self._pages.shown(command.chat, version, command.number, json_of(entry))
            results.append(shown)
        return results


async def chat_gone(client: RedisClient, key: ChatKey) -> None:
    """Remove a deleted chat from Redis and, through a new version of its application, from the memory of every process.
    Raises Unavailable."""
    names = client.named()
    await client.script("gone", 3, names.chat(key), names.old(key), names.announced(key), GONE_MS)
    await new_version(client, key.token)


async def new_version(client: RedisClient, token: str) -> None:
    await client.call("SET", client.named().application(token), unique(), "EX", 86400)


def post_entry(post: Post) -> bytes:
    """As entry_of, but it makes no Message."""
    encoded = encode_item(post.number, post.sender_ref, post.sender_name, post.body, post.created_at)
    return encoded_entry(post.sender_id, post.created_at, encoded)


def change_entry(change: Edit | Delete, message: Message) -> bytes:
    """How the message is shown after the change."""
    if isinstance(change, Delete):
        return deleted(change.order)
    return entry_of(replace(message, body=change.body, edited_at=change.edited_at), change.order)


def position_of(field: bytes) -> Position | None:
    """The position that a replica must have reached; None when it is not known, so that only the primary may answer."""
    if not field:
        return None
    return Position(*map(int, field.split(b":")))
