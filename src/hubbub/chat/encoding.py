"""Messages and chats as the API's JSON. Encoded once when stored, then kept, so a page is a join of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


Item = tuple[int, bytes]  # a message's number, and the message as the API sends it

_encode = msgspec.json.Encoder().encode


def encode_message(message: Message) -> bytes:
    edited = None if message.edited_at is None else timestamp(message.edited_at)
    return encode_item(
        message.number, message.sender_ref, message.sender_name, message.body, message.created_at, edited
    )


def encode_item(
    number: int, sender_ref: str, sender_name: str, body: str, created_at: int, edited: str | None = None
) -> bytes:
    """A message as the API sends it. ``edited`` is the time of its last edit, as text."""
    return _encode(MessageItem(number, sender_ref, sender_name, body, timestamp(created_at), edited))


def encode_chat(number: int, title: str | None, messages_count: int) -> bytes:
    return _encode(ChatItem(number, title, messages_count))


def encode_chats(chats: Sequence[Chat]) -> bytes:
    return b"[" + b",".join(encode_chat(chat.number, chat.title, chat.messages_count) for chat in chats) + b"]"


def encode_messages(messages: Iterable[Message]) -> list[Item]:
    return [(message.number, encode_message(message)) for message in messages]


def page_of(items: Sequence[Item], *, more: bool) -> Page:
    """The page of these messages, newest first."""
    return Page(
        body=_array([encoded for _, encoded in items]),
        oldest=items[-1][0] if items else None,
        newest=items[0][0] if items else None,
        more=more,
    )


def page_after(before: Page, messages: Sequence[Item], added: int, limit: int) -> Page:
    """The page of the newest ``limit`` messages, ascending; ``before`` is the one without the last ``added`` of them.
    What both have is copied in one piece: finding the messages one by one costs more than all else of a list.
    """
    if added >= limit or len(messages) < limit + added:
        return page_of(messages[: -limit - 1 : -1], more=len(messages) > limit)
    new = [messages[-1][1]]
    gone = len(messages[-limit - 1][1]) + 1
    for at in range(2, added + 1):
        new.append(messages[-at][1])
        gone += len(messages[-limit - at][1]) + 1
    body = b"".join((b"[", b",".join(new), b",", before.body[1 : -1 - gone], b"]"))
    return Page(body, messages[-limit][0], messages[-1][0], True)  # by name it takes twice as long


def _array(encoded: list[bytes]) -> bytes:
    """A JSON array. It is made by one join: to copy the largest page takes milliseconds."""
    if not encoded:
        return b"[]"
    encoded[0] = b"[" + encoded[0]
    encoded[-1] += b"]"
    return b",".join(encoded)


def encode_page(messages: Sequence[Message], limit: int) -> Page:
    """A page of the messages, newest first; one more than ``limit`` of them says that there are older ones."""
    return page_of(encode_messages(messages[:limit]), more=len(messages) > limit)
