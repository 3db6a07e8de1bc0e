"""Encodes and decodes entries: messages in the form that redis.keys describes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from hubbub.chat.encoding import encode_message
from hubbub.chat.large_pages import SLICE
from hubbub.chat.model import Message


class _Item(msgspec.Struct, rename="camel"):
    """The fields that only an entry's JSON has. A version before 0.2 wrote no ``senderId``."""

    sender_name: str
    body: str
    sender_id: str = ""


_decode = msgspec.json.Decoder(_Item).decode


def entry_of(message: Message, order: int = 0) -> bytes:
    return encoded_entry(message.sender_id, message.created_at, encode_message(message), order, message.edited_at or 0)


def encoded_entry(sender_id: int, created_at: int, encoded: bytes, order: int = 0, edited_at: int = 0) -> bytes:
    """The entry of a message that is encoded as the API sends it."""
    return b"%d %d %d %d %b" % (order, sender_id, created_at, edited_at, encoded)


def deleted(order: int) -> bytes:
    return b"%d x" % order


def is_deleted(entry: bytes) -> bool:
    return entry.endswith(b" x")


def json_of(entry: bytes) -> bytes:
    """The message as the API sends it."""
    return entry.split(b" ", 4)[4]


def names_sender(entry: bytes) -> bool:
    """Whether the message's JSON has ``senderId``; entries written by a version before 0.2 lack it. The search can't
    match a message's text, where the quotes would be escaped.
    """
    return entry.find(b'"senderId":') > 0  # in half the time of ``in``


def message_of(number: int, entry: bytes) -> Message:
    """The message of an entry. ``sender_ref`` is empty if the entry has none, see MySqlStore.with_refs."""
    _, sender_id, created_at, edited_at, encoded = entry.split(b" ", 4)
    item = _decode(encoded)
    return Message(
        number,
        int(sender_id),
        item.sender_id,
        item.sender_name,
        item.body,
        int(created_at),
        int(edited_at) or None,
    )


async def messages_of(entries: Iterable[tuple[int, bytes]]) -> list[Message]:
    """The messages of numbered entries. Large ones are decoded in slices, and other work runs between these."""
    messages: list[Message] = []
    size = 0
    for number, entry in entries:
        messages.append(message_of(number, entry))
        size += len(entry)
        if size >= SLICE:
            size = 0
            await asyncio.sleep(0)
    return messages
