"""Checks the content type of request bodies."""

from __future__ import annotations

from hubbub.chat.errors import ChatError


class UnsupportedMedia(ChatError):
    """The body does not say that it is JSON."""


def is_json(content_type: bytes | None) -> bool:
    """Whether it names JSON, or a format that is written in JSON."""
    if content_type == b"application/json":
        return True
    media = (content_type or b"").split(b";", 1)[0].strip().lower()
    return media == b"application/json" or (media.startswith(b"application/") and media.endswith(b"+json"))


def must_be_json(content_type: bytes | None, body: bytes) -> None:
    """A request with a body must declare that it is JSON.

    Raises:
        UnsupportedMedia
    """
    if body and not is_json(content_type):
        raise UnsupportedMedia("Send the body as JSON, with Content-Type: application/json.")
