"""The user who makes a request, and what is known of that request."""

from __future__ import annotations

from contextvars import ContextVar

import msgspec

from hubbub.chat.model import User

# The public id of the user whose request is handled in this context; empty for all other work. Limits deep down, where
# nothing else of the request is known, count by it. Every request begins in a new context.
asking: ContextVar[str] = ContextVar("asking", default="")


class Caller(msgspec.Struct, frozen=True):
    """Made by http.sessions for each request, once the gate has let the user in.

    ``brought`` is what the gate brought along for the view, which alone looks into it; None where it brought nothing.
    ``trace`` is a W3C traceparent that goes with what is written, empty where nothing is traced.
    """

    user: User
    brought: object = None
    trace: str = ""
