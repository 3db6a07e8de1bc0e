"""The names of all that Hubbub keeps in Redis, and what is under them.

Every name begins with the generation of its Redis (see cluster.generations); all of it may be lost at any moment, and
comes and goes as a whole. Names of an application have its token in braces.

A chat is a hash: ``e`` its epoch, ``s`` 1 when it is live and 0 while it is pending, ``n`` the last number given, ``f``
the floor, ``c`` the place of the last change, ``a`` that of the last one that is stored, ``v`` what its page version
ends in, ``p`` the store's position that all below the floor has, ``q:NUMBER`` the places of a message's changes that
are not stored yet and of the last edit that is, and an entry for each number above the floor:

- ``""``: the number is given, and its message is not shown yet;
- ``ORDER x``: the message is deleted, and the store has it still;
- ``ORDER SENDER CREATED EDITED JSON``: the message as readers see it. ORDER is that of its last change, or 0. A ``+``
  before it says that the message is not stored yet.

Its *old entries* are a hash beside it, of numbers at or below the floor that the store does not have as readers must
see them: the same entries, or ``ORDER x`` for one that is deleted.

Invariant: number.lua, enter.lua and seed.lua make entries, and none is made again once it has gone. So what comes late
about a number finds nothing, and changes nothing. Two more make one, where readers can't have seen a newer: show.lua an
old entry, for a change of a message that the store alone has, while its note is there; applied.lua one for a post that
was set aside and sent again, where the chat's position is older.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hubbub.chat.model import ChatKey

LIFETIME_MS = 7 * 24 * 3600 * 1000  # of a chat in which something may wait for the store
STORED_LIFETIME_MS = 24 * 3600 * 1000  # of one in which nothing does
KEY_MS = 7 * 24 * 3600 * 1000  # of an Idempotency-Key whose message is not stored yet
STORED_KEY_MS = 10 * 60 * 1000  # of one whose message is: rule 7 counts on it

_TEXTS = {file.stem: file.read_text() for file in sorted((Path(__file__).parent / "scripts").glob("*.lua"))}
_SHARED = _TEXTS.pop("shared")

# Those from whose reply something is told. They also say from which data they have answered: a server that was made
# another's replica and then a master again has that one's data, on the same connection.
VOUCHED = frozenset(("enter", "newest", "number", "order", "read", "seed", "show", "some", "version"))
SCRIPTS = {
    name: _SHARED
    + (f"local function answer()\n{text}\nend\nreturn {{data_set(), answer()}}\n" if name in VOUCHED else text)
    for name, text in _TEXTS.items()
}


class ChatNames(NamedTuple):
    """The names that the path of a message needs, made once for each chat."""

    application: str
    chat: str
    old: str


@lru_cache(50_000)
def names_of(generation: int, key: ChatKey) -> ChatNames:
    tag = f"{{{key.token}}}"
    return ChatNames(
        f"{generation}:a:{tag}",
        f"{generation}:c:{tag}:{key.number}",
        f"{generation}:o:{tag}:{key.number}",
    )


class Keys:
    """The names in one generation."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    def of(self, key: ChatKey) -> ChatNames:
        return names_of(self.generation, key)

    def chat(self, key: ChatKey) -> str:
        return self.of(key).chat

    def old(self, key: ChatKey) -> str:
        return self.of(key).old

    def announced(self, key: ChatKey) -> str:
        """The markers that were announced for a chat."""
        return f"{self.generation}:s:{{{key.token}}}:{key.number}"

    def idempotency(self, key: ChatKey, sender_id: int, given: str) -> str:
        return f"{self.generation}:k:{{{key.token}}}:{key.number}:{sender_id}:{given}"

    def guard(self, token: str, word: str) -> str:
        """Vouches that nothing was lost since a new chat was announced."""
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
        """There once all that was queued in the shard, when this data set was new, is stored."""
        return f"{self.generation}:f:{shard}"

    def barrier(self, shard: int) -> str:
        return f"{self.generation}:b:{shard}"

    def count(self, limit: str, key: str) -> str:
        """What is counted against a limit, see scripts/count.lua."""
        return f"{self.generation}:w:{limit}:{key}"


def channel(key: ChatKey) -> str:
    """Where those who listen to a chat hear of it."""
    return f"feed:{key.token}:{key.number}"
