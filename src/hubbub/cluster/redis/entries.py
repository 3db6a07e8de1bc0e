"""Entries: messages as redis.keys describes them."""

from __future__ import annotations

import msgspec

from hubbub.chat.encoding import MessageItem, encode_message
from hubbub.chat.model import Message

_decode = msgspec.json.Decoder(MessageItem).decode


def entry_of(message: Message, order: int = 0) -> bytes:
    return b"%d %d %d %d %b" % (
        order,
        message.sender_id,
        message.created_at,
        message.edited_at or 0,
        encode_message(message),
    )


def deleted(order: int) -> bytes:
    return b"%d x" % order


def is_deleted(entry: bytes) -> bool:
    return entry.endswith(b" x")


def json_of(entry: bytes) -> bytes:
    """The message as the API sends it."""
    return entry.split(b" ", 4)[4]


def message_of(number: int, entry: bytes) -> Message:
    _, sender_id, created_at, edited_at, encoded = entry.split(b" ", 4)
    shown = _decode(encoded)
    return Message(number, int(sender_id), shown.sender_name, shown.body, int(created_at), int(edited_at) or None)
