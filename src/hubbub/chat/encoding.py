"""Messages and chats as the API's JSON. Encoded once when stored, then kept, so a page is a join of bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hubbub.chat.model import Chat, Message, Page, timestamp


class MessageItem(msgspec.Struct, rename="camel", omit_defaults=True):
    """One message as the API sends it."""

    message_number: int
    sender_id: str
    sender_name: str
    body: str
    created_at: str
    edited_at: str | None = None


class ChatItem(msgspec.Struct, rename="camel"):
    """One chat as the API sends it."""

    chat_number: int
    title: str | None
    messages_count: int


_encode = msgspec.json.Encoder().encode


def encode_message(message: Message) -> bytes:
    return _encode(
        MessageItem(
            message.number,
            message.sender_ref,
            message.sender_name,
            message.body,
            timestamp(message.created_at),
            None if message.edited_at is None else timestamp(message.edited_at),
        )
    )


def encode_chat(number: int, title: str | None, messages_count: int) -> bytes:
    return _encode(ChatItem(number, title, messages_count))


def encode_chats(chats: Sequence[Chat]) -> bytes:
    return b"[" + b",".join(encode_chat(chat.number, chat.title, chat.messages_count) for chat in chats) + b"]"


def encode_page(messages: Sequence[Message], limit: int) -> Page:
    """A page of the messages, newest first; one more than ``limit`` of them says that there are older ones."""
    shown = messages[:limit]
    return Page(
        body=b"[" + b",".join(encode_message(message) for message in shown) + b"]",
        oldest=shown[-1].number if shown else None,
        newest=shown[0].number if shown else None,
        more=len(messages) > limit,
    )
