"""The errors that a caller can get. The HTTP layer turns each into a status code."""

from __future__ import annotations

from typing import Any


class ChatError(Exception):
    """A refusal with a sentence that says what is wrong and how to fix it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle, which would otherwise call the class with a sentence alone."""
        return _copy, (type(self), self.args, vars(self))


def _copy(kind: type[ChatError], args: tuple[Any, ...], fields: dict[str, Any]) -> ChatError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class Unauthenticated(ChatError):
    """No credentials, or credentials that are wrong or have ended."""


class Forbidden(ChatError):
    """A member who may not do this."""


class NotFound(ChatError):
    """Not there, or not visible to this caller. With ``lag``, it may exist after all: see model.MessagesRead."""

    def __init__(self, sentence: str, *, lag: bool = False) -> None:
        super().__init__(sentence)
        self.lag = lag


class WrongCode(NotFound):
    """A code that is unknown or not valid any more. It counts against the address that sent it."""


class Malformed(ChatError):
    """The body is not JSON, or not a JSON object."""


class Invalid(ChatError):
    """One or more fields are wrong; ``errors`` has one sentence for each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class KeyReused(ChatError):
    """An Idempotency-Key was used again with another body."""


class RateLimited(ChatError):
    """Too many requests. ``limit`` requests are allowed; try again after ``retry_after`` seconds."""

    def __init__(self, sentence: str, *, limit: int, retry_after: float) -> None:
        super().__init__(sentence)
        self.limit = limit
        self.retry_after = retry_after


class UsedUp(RateLimited):
    """One of chat.limits is used up. ``what`` names its count."""

    def __init__(self, sentence: str, *, what: str, limit: int, retry_after: float) -> None:
        super().__init__(sentence, limit=limit, retry_after=retry_after)
        self.what = what


class Unavailable(ChatError):
    """A part is down or full; nothing was done. Try again after ``retry_after`` seconds."""

    def __init__(self, sentence: str, *, retry_after: float = 1.0) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
