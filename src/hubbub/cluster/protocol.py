"""The messages in the queues, and the outcomes of applying them.

A command may be read by another version than the one that wrote it: fields may be added at the end, with a default, but
never changed or removed. docs/decisions/0007-cluster-protocol.md has the rules of the protocol.
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
    """Posts a message. Outcome: its number; Repeated when the message of its key is stored; Straggler when its epoch is
    over.

    ``number`` was given to this command alone, in ``epoch``. An epoch of 0 says that the number was kept for the
    command, which is sent again after it was set aside. ``sender_ref`` is empty in a post queued by a version before
    0.2.
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
    sender_ref: str = ""


class Edit(msgspec.Struct, frozen=True, tag="EditMessage", array_like=True):
    """Edits a message. Outcome: None, also when a later change was applied before; NotFound when there is no such
    message.

    ``order`` is its place among the chat's changes; it is 0 for an edit queued by a version without orders, which had
    ``op`` instead.
    """

    chat: ChatKey
    number: int
    editor_id: int
    body: str
    edited_at: int
    op: str = ""
    order: int = 0


class Delete(msgspec.Struct, frozen=True, tag="DeleteMessage", array_like=True):
    """Deletes a message. Outcome: None; NotFound when there is no such message. ``order`` and ``op``: see Edit."""

    chat: ChatKey
    number: int
    deleter_id: int
    any_sender: bool
    op: str = ""
    order: int = 0


class OpenChat(msgspec.Struct, frozen=True, tag="OpenChat", array_like=True):
    """Begins a new epoch of the chat's numbers, after all that was queued before. Outcome: Opened.

    ``candidate`` is the name under which this attempt was announced, in the generation ``generation``.
    """

    chat: ChatKey
    candidate: str
    generation: int = 0


class Barrier(msgspec.Struct, frozen=True, tag="Barrier", array_like=True):
    """Shows, once it is applied, that the store has all that was queued before it. Outcome: None.

    It was announced as ``candidate`` in the generation ``generation`` of Redis ``slot``.
    """

    slot: int
    candidate: str
    generation: int


Change: TypeAlias = Edit | Delete
Queued: TypeAlias = Post | Edit | Delete | OpenChat | Barrier


class Delivery(msgspec.Struct, frozen=True, array_like=True):
    """Commands that one publisher sent together.

    ``sequence`` rises by one with each of the publisher's deliveries to the shard. All deliveries up to ``confirmed``
    were confirmed when this one was sent; it is -1 from a version that did not record it.
    """

    publisher: str
    sequence: int
    commands: list[Queued]
    confirmed: int = -1


class Opened(NamedTuple):
    """What the store has of a chat that is opened. ``last_number`` is the highest number that it knows of; ``newest``
    are up to 101 messages, newest first, with their orders."""

    epoch: int
    last_number: int
    newest: list[tuple[Message, int]]


class Repeated(NamedTuple):
    """The message with this key is stored, with this number."""

    number: int


class AppliedBefore(NamedTuple):
    """The command came in a delivery that had been applied before; its outcome at that time is not known."""


class Straggler(NamedTuple):
    """A command of an epoch that is over: it was never acknowledged, and its number may be given to another command
    by now."""

    live_epoch: int


class Gone(NamedTuple):
    """The command's chat was deleted: nothing of the command is kept."""


class Failed(NamedTuple):
    """The outcome of a command that can't be stored."""

    reason: str


class Position(NamedTuple):
    """How far a shard's queue has been applied to the store, in transactions. A replica that is behind lacks some.

    ``shards`` is the number of shards at that time: when it is raised, a chat may move to another shard, with another
    count.
    """

    shards: int
    shard: int
    transactions: int


class Applied(NamedTuple):
    """The outcomes of each delivery's commands, None for a delivery that had been applied before."""

    position: Position
    outcomes: list[list[Outcome] | None]


class SequenceGap(Exception):
    """A delivery came before an earlier one of its publisher: it must neither be applied nor count as applied."""

    def __init__(self, shard: int, publisher: str, expected: int, found: int) -> None:
        super().__init__(f"shard {shard}: publisher {publisher} sent {found}, and {expected} was not applied yet")
        self.shard = shard
        self.publisher = publisher
        self.expected = expected
        self.found = found


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Delivery).decode


class Unreadable(ValueError):
    """A message in the queue is no delivery."""


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
    """The epoch of an order, and the place in that epoch."""
    return order >> _EPOCH_BITS, order & (1 << _EPOCH_BITS) - 1


def kind_of(command: Queued) -> str:
    """The name of a command's kind, in the queue and in messages to an operator."""
    return str(command.__struct_config__.tag)


def retry_name(number: int, at: str) -> str:
    """The name of the publisher that sends the command of a row of ``set_aside`` again."""
    return f"retry.{number}.{at}"


def retried(publisher: str) -> int | None:
    """The id of the row whose command this publisher sends again; None for any other publisher."""
    kind, _, rest = publisher.partition(".")
    return int(rest.partition(".")[0]) if kind == "retry" and rest.partition(".")[0].isdecimal() else None
