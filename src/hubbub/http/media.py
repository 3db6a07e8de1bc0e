"""Which bodies are taken."""

from __future__ import annotations

from hubbub.chat.errors import ChatError


class UnsupportedMedia(ChatError):
    """The body does not say that it is JSON."""


def must_be_json(content_type: bytes | None, body: bytes) -> None:
    """A body must say that it is JSON; no body needs to say nothing.

    Raises:
        UnsupportedMedia
    """
    if content_type == b"application/json" or not body:
        return
    media = (content_type or b"").split(b";", 1)[0].strip().lower()
    if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
        raise UnsupportedMedia("Send the body as JSON, with Content-Type: application/json.")
