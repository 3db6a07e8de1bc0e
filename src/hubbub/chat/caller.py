"""The user who makes a request, and what is known of that request."""

from __future__ import annotations

import msgspec

from hubbub.chat.model import User


class Caller(msgspec.Struct, frozen=True):
    """Made by http.sessions for each request, once the gate has let the user in.

    ``brought`` is what the gate brought along for the view, which alone looks into it; None where it brought nothing.
    ``trace`` is a W3C traceparent that goes with what is written, empty where nothing is traced.
    """

    user: User
    brought: object = None
    trace: str = ""
