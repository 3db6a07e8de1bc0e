"""What travels through the queues, and what a writer makes of it.

Commands may be read by another version than wrote them: a field may be added at the end, with a default, and none may
be changed or go. The rules that they serve are in docs/decisions/0007-cluster-protocol.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from hubbub.chat.commands import Outcome
from hubbub.chat.model import ChatKey, Message

_EPOCH_BITS = 28  # below them is a change's place in its epoch


class Post(msgspec.Struct, frozen=True, tag="PostMessage", array_like=True):
    """Outcome: its number; Repeated when the message of its key is stored; Straggler when its epoch is over.

    ``number`` was given to this command alone, in ``epoch``; an epoch of 0 is of no numbering: the number was kept for
    it.
    """

    chat: ChatKey
    number: int
    sender_id: int
    sender_name: str
    body: str
    created_at: int
    key: str | None = None
    body_hash: bytes | None = None
    epoch: int = 0
    trace: str = ""


class Edit(msgspec.Struct, frozen=True, tag="EditMessage", array_like=True):
    """Outcome: None, also when a later change was applied before; NotFound when the message is not there.

    ``order`` is its place among the chat's changes, 0 for one that was queued before there were orders. ``op`` is what
    such a one had instead.
    """

    chat: ChatKey
    number: int
    editor_id: int
    body: str
    edited_at: int
    op: str = ""
    order: int = 0


class Delete(msgspec.Struct, frozen=True, tag="DeleteMessage", array_like=True):
    """Outcome: None; NotFound when the message is not there. ``order`` and ``op``: see Edit."""

    chat: ChatKey
    number: int
    deleter_id: int
    any_sender: bool
    op: str = ""
    order: int = 0


class OpenChat(msgspec.Struct, frozen=True, tag="OpenChat", array_like=True):
    """Opens the chat's numbering anew, behind all that was queued before. Outcome: Opened.

    ``candidate`` names this attempt where it was announced: in the generation ``generation``.
    """

    chat: ChatKey
    candidate: str
    generation: int = 0


class Barrier(msgspec.Struct, frozen=True, tag="Barrier", array_like=True):
    """Says that the store has all that was queued before it. Outcome: None.

    It was announced as ``candidate`` in the generation ``generation`` of Redis ``slot``.
    """

    slot: int
    candidate: str
    generation: int


Change: TypeAlias = Edit | Delete
Queued: TypeAlias = Post | Edit | Delete | OpenChat | Barrier


class Delivery(msgspec.Struct, frozen=True, array_like=True):
    """Some commands as one publisher sent them together.

    ``sequence`` rises by one with each of its deliveries to the shard. Up to ``confirmed`` they were all confirmed when
    it was sent; -1 from a version that did not say.
    """

    publisher: str
    sequence: int
    commands: list[Queued]
    confirmed: int = -1


class Opened(NamedTuple):
    """``last_number`` is the highest ever given; ``newest`` are up to 101 messages, newest first, with their orders."""

    epoch: int
    last_number: int
    newest: list[tuple[Message, int]]


class Repeated(NamedTuple):
    """The message with this key is stored, with this number."""

    number: int


class AppliedBefore(NamedTuple):
    """The command came in a delivery that had been applied before; what became of it then is not said."""


class Straggler(NamedTuple):
    """A command of an epoch that is over: nobody was told that it is accepted, and its number may be another's by
    now."""

    live_epoch: int


class Gone(NamedTuple):
    """The command's chat was deleted: nothing of the command is kept."""


class Failed(NamedTuple):
    """The outcome of a command that the store chokes on."""

    reason: str


class Position(NamedTuple):
    """How far a shard's queue has been applied to the store: a copy that is behind it lacks something.

    ``shards`` is how many there were: with more of them a chat may be in another, which counts anew.
    """

    shards: int
    shard: int
    transactions: int


class Applied(NamedTuple):
    """The outcomes of each delivery's commands, None for a delivery that had been applied before."""

    position: Position
    outcomes: list[list[Outcome] | None]


class Hole(Exception):
    """A delivery came before an earlier one of its publisher: it must not be applied, nor taken for applied."""

    def __init__(self, shard: int, publisher: str, expected: int, found: int) -> None:
        super().__init__(f"shard {shard}: publisher {publisher} sent {found}, and {expected} was not applied yet")
        self.shard = shard
        self.publisher = publisher
        self.expected = expected
        self.found = found


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Delivery).decode


class Unreadable(ValueError):
    """What came is no delivery."""


def decode(body: bytes) -> Delivery:
    """Raises Unreadable."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error


@lru_cache(50_000)
def shard_of(token: str, shards: int) -> int:
    return crc32(token.encode()) % shards


def order_of(epoch: int, place: int) -> int:
    """A change's place among all changes of a chat: those of a later epoch come later."""
    return epoch << _EPOCH_BITS | place


def place_of(order: int) -> tuple[int, int]:
    """The epoch, and the place in it."""
    return order >> _EPOCH_BITS, order & (1 << _EPOCH_BITS) - 1


def kind_of(command: Queued) -> str:
    """What a command is called where it travels, and to an operator."""
    return str(command.__struct_config__.tag)


def retry_name(number: int, at: str) -> str:
    """The publisher that sends the command of a row of ``set_aside`` again."""
    return f"retry.{number}.{at}"


def retried(publisher: str) -> int | None:
    """The row whose command this publisher sends again; None where it is another's."""
    kind, _, rest = publisher.partition(".")
    return int(rest.partition(".")[0]) if kind == "retry" and rest.partition(".")[0].isdecimal() else None
