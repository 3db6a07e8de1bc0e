"""Logs a line for each request, if ``access_log`` is set: never with a query, a body, a cookie or a whole token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

log = logging.getLogger("hubbub.access")

_LONGEST = 16  # a longer part of a path is a token, and is cut
_KEPT = 6
_LONGEST_PATH = 300


def shortened(target: bytes) -> str:
    """The path of a request's target, with only the beginning of each token in it, enough to tell it from others."""
    path = target.partition(b"?")[0].decode("ascii", "backslashreplace")
    if not path.isprintable():
        path = ascii(path)[1:-1]
    parts = (part if len(part) <= _LONGEST else part[:_KEPT] + "…" for part in path.split("/"))
    return "/".join(parts)[:_LONGEST_PATH] or "-"


class AccessLog:
    """``user_of`` has the public id of whose session a request came with (Cookie, Authorization), or the empty text;
    ``proxies`` believes the trusted ones.
    """

    def __init__(
        self, user_of: Callable[[bytes | None, bytes | None], str], proxies: ProxyHeadersMiddleware | None
    ) -> None:
        self._user_of = user_of
        self._trusted = proxies.trusted_hosts if proxies is not None else None

    def add(
        self, peer: str, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], status: int, begun: float
    ) -> None:
        """``begun`` is perf_counter's when the request had come. What could not be read has no method and target."""
        given = dict(headers)
        fields: dict[str, Any] = {
            "address": self._address(peer, headers),
            "user": self._user_of(given.get(b"cookie"), given.get(b"authorization")) or "-",
            "method": method.decode("ascii", "replace") or "-",
            "path": shortened(target),
            "status": status,
            "duration_ms": round((perf_counter() - begun) * 1000, 3),
        }
        log.info("%(address)s %(user)s %(method)s %(path)s %(status)d %(duration_ms).3f ms", fields, extra=fields)

    def _address(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        forwarded = ""
        if self._trusted is not None and peer in self._trusted:
            said = b", ".join(value for name, value in headers if name == b"x-forwarded-for")
            forwarded = self._trusted.get_trusted_client_address(said.decode("latin-1"))[0][:_LONGEST_PATH]
        address = forwarded or peer or "-"
        return address if address.isprintable() and " " not in address else ascii(address)
