"""Answers for refused requests, as RFC 9457 problems."""

from __future__ import annotations

import logging
import math
import secrets
from http import HTTPStatus
from typing import Any

import msgspec

from hubbub.chat.errors import (
    ChatError,
    Forbidden,
    Invalid,
    KeyReused,
    Malformed,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from hubbub.http.media import UnsupportedMedia
from hubbub.http.reply import LAG, PROBLEM, Reply

log = logging.getLogger("hubbub.http")

# Before a 429 is answered. Who sends on, whatever the answer is, would otherwise have the process make as many of them
# as it can, at the cost of everybody else. A connection sends no request meanwhile.
LATE_S = 0.1

_STATUS_OF: dict[type[ChatError], int] = {
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    KeyReused: 409,
    UnsupportedMedia: 415,
    Invalid: 422,
    RateLimited: 429,
    Unavailable: 503,
}


class Problem(msgspec.Struct, omit_defaults=True):
    """A problem of RFC 9457, section 3.1. ``error`` repeats ``detail``; ``errors`` has one for each wrong field."""

    title: str
    status: int
    detail: str
    error: str
    errors: list[str] = []
    type: str = msgspec.field(default="about:blank")


class Refused(Exception):
    """A request that can't be read to its end, with its answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def problem(status: int, detail: str, *, errors: list[str] | None = None, headers: bytes = b"") -> Reply:
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error": detail,
    }
    if errors is not None:
        content["errors"] = errors
    return Reply(status, msgspec.json.encode(content), PROBLEM, headers)


def failure(error: Exception) -> Reply:
    """The answer when handling a request raised: a refusal, or a 500 without internal details."""
    if isinstance(error, ChatError):
        return refusal(error)
    request_id = secrets.token_hex(8)
    log.error("Request %s failed.", request_id, exc_info=error, extra={"request_id": request_id})
    header = b"x-request-id: %b\r\n" % request_id.encode()
    return problem(500, f"Something went wrong here; the service's log has it as request {request_id}.", headers=header)


def status_of(error: ChatError) -> int:
    return next(_STATUS_OF[kind] for kind in type(error).__mro__ if kind in _STATUS_OF)


def refusal(error: ChatError) -> Reply:
    """The answer to a caller whose request was refused with ``error``."""
    status = status_of(error)
    headers = b""
    if isinstance(error, Unauthenticated):
        headers = b'www-authenticate: Bearer realm="hubbub"\r\n'
    elif isinstance(error, RateLimited):
        wait = math.ceil(error.retry_after)
        headers = b"retry-after: %d\r\nratelimit-limit: %d\r\nratelimit-remaining: 0\r\nratelimit-reset: %d\r\n" % (
            wait,
            error.limit,
            wait,
        )
    elif isinstance(error, Unavailable):
        headers = b"retry-after: %d\r\n" % math.ceil(error.retry_after)
    elif isinstance(error, NotFound) and error.lag:
        headers = LAG
    errors = error.errors if isinstance(error, Invalid) else None
    return problem(status, error.sentence, errors=errors, headers=headers)
