"""Headers that a request may have only once (RFC 9110, section 5.3): of two, one route would take the first and another
the last, so a request would be one user's here and another's there.
"""

from __future__ import annotations

from hubbub.http.problems import Refused, problem
from hubbub.http.target import Headers

_SINGLE = (b"authorization", b"content-type", b"idempotency-key", b"last-event-id", b"origin", b"sec-fetch-site")


def single(headers: Headers) -> Headers:
    """The headers. Several Cookie lines, as some programs make of those of HTTP/2, become one (RFC 9113, section
    8.2.3).

    Raises:
        Refused: one that may be there once is there again.
    """
    names = [name for name, _ in headers]
    if len(set(names)) == len(names):
        return headers
    for name in _SINGLE:
        if names.count(name) > 1:
            raise Refused(problem(400, f"Send at most one {name.decode().title()} header."))
    if names.count(b"cookie") < 2:
        return headers
    cookies = b"; ".join(value for name, value in headers if name == b"cookie")
    return [*((name, value) for name, value in headers if name != b"cookie"), (b"cookie", cookies)]
