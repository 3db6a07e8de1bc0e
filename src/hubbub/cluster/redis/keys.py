"""The keys that Hubbub uses in Redis, and the values under them.

Every key begins with the generation of its Redis (see cluster.generations). All data of a generation may be lost at any
moment, and only as a whole. The keys of an application have its token in braces.

A chat is a hash with these fields, and one entry for each number above the floor:

- ``e``: its epoch;
- ``s``: 1 when the chat is live, 0 while it is pending, and x (without other fields) for an hour after it was deleted;
- ``n``: the last number given;
- ``f``: the floor;
- ``c``: the place of the last change; ``a``: the place of the last change that is stored;
- ``v``: the last part of its page version;
- ``p``: the store's position that includes all messages at or below the floor;
- ``q:NUMBER``: the places of a message's changes that are not stored yet, and of its last stored edit.

An entry is one of:

- ``""``: the number is given, and its message is not shown yet;
- ``ORDER x``: the message is deleted, and the store still has it;
- ``ORDER SENDER CREATED EDITED JSON``: the message as readers see it. ORDER is the order of its last change, or 0;
  SENDER is the store's id of the sender. JSON has the public id, unless a version before 0.2 wrote it. A ``+`` in front
  says that the message is not stored yet.

The *old entries* of a chat are a second hash. It has the numbers at or below the floor whose messages the store does
not have as readers must see them, with entries of the same form.

Invariant: number.lua, enter.lua and seed.lua create entries, and no entry is created again once it is removed. So a
late update for a number finds no entry, and changes nothing. Two more scripts create an entry, in cases where readers
can't have seen a newer one: show.lua creates an old entry for a change of a message that only the store has, while the
note of that change is there; applied.lua creates an entry for a post that was set aside and sent again, if the chat's
position is older.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hubbub.chat.model import ChatKey

LIFETIME_MS = 7 * 24 * 3600 * 1000  # of a chat with messages or changes that may not be stored yet
STORED_LIFETIME_MS = 24 * 3600 * 1000  # of a chat in which all is stored
KEY_MS = 7 * 24 * 3600 * 1000  # of an Idempotency-Key whose message is not stored yet
GONE_MS = 3600 * 1000  # how long a chat is marked as deleted
STORED_KEY_MS = 10 * 60 * 1000  # of an Idempotency-Key whose message is stored: rule 7 relies on it

_TEXTS = {file.stem: file.read_text() for file in sorted((Path(__file__).parent / "scripts").glob("*.lua"))}
_SHARED = _TEXTS.pop("shared")

# The scripts whose reply decides what a client is told. Their reply also names the data set that answered: a server
# that was made a replica of another, and then a master again, has the other's data on the same connection.
VOUCHED = frozenset(("enter", "newest", "number", "order", "read", "seed", "show", "some", "version"))
SCRIPTS = {
    name: _SHARED
    + (f"local function answer()\n{text}\nend\nreturn {{data_set(), answer()}}\n" if name in VOUCHED else text)
    for name, text in _TEXTS.items()
}


class ChatNames(NamedTuple):
    """The keys that the path of a message needs, and the channel of the chat's events, made once for each chat."""

    application: str
    chat: str
    old: str
    channel: str


@lru_cache(50_000)
def names_of(generation: int, key: ChatKey) -> ChatNames:
    tag = f"{{{key.token}}}"
    return ChatNames(
        f"{generation}:a:{tag}",
        f"{generation}:c:{tag}:{key.number}",
        f"{generation}:o:{tag}:{key.number}",
        channel(key),
    )


class Keys:
    """The keys in one generation."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    def of(self, key: ChatKey) -> ChatNames:
        return names_of(self.generation, key)

    def chat(self, key: ChatKey) -> str:
        return self.of(key).chat

    def old(self, key: ChatKey) -> str:
        return self.of(key).old

    def announced(self, key: ChatKey) -> str:
        """The markers announced for a chat."""
        return f"{self.generation}:s:{{{key.token}}}:{key.number}"

    def idempotency(self, key: ChatKey, sender_id: int, given: str) -> str:
        return f"{self.generation}:k:{{{key.token}}}:{key.number}:{sender_id}:{given}"

    def guard(self, token: str, word: str) -> str:
        """Exists as long as no data was lost since a new chat was announced."""
        return f"{self.generation}:g:{{{token}}}:{word}"

    def application(self, token: str) -> str:
        """The version of an application: of its members and of its list of chats."""
        return self.of(ChatKey(token, 0)).application

    def user(self, user_id: int) -> str:
        """The version of a user's sessions."""
        return f"{self.generation}:u:{user_id}"

    def rate(self, user_id: int) -> str:
        return f"{self.generation}:l:{user_id}"

    def drained(self, shard: int) -> str:
        """Exists once everything that was in the shard's queue when this data set was new is stored."""
        return f"{self.generation}:f:{shard}"

    def barrier(self, shard: int) -> str:
        return f"{self.generation}:b:{shard}"

    def count(self, limit: str, key: str) -> str:
        """A count against a limit, see scripts/count.lua."""
        return f"{self.generation}:w:{limit}:{key}"


def channel(key: ChatKey) -> str:
    """The channel of a chat's events."""
    return f"feed:{key.token}:{key.number}"
