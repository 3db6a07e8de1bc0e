"""The target and the Host of a request (RFC 9112, section 3.2)."""

from __future__ import annotations

import re

from hubbub.http.problems import Refused, problem

_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)

Headers = list[tuple[bytes, bytes]]


def resolved(method: bytes, target: bytes, headers: Headers, version: str) -> tuple[bytes, Headers]:
    """The path and query of a request, and its headers with the Host that counts: that of an absolute target replaces
    the header's.

    Raises:
        Refused: no Host, several, or one that can't be; a target that is neither a path nor a URL of ours.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise Refused(problem(400, "Send exactly one Host header."))
    if hosts and _AUTHORITY.fullmatch(hosts[0]) is None:
        raise Refused(problem(400, "The Host header must be a name or an address, and an optional port."))
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, headers
    found = _ABSOLUTE.fullmatch(target)
    if found is None or _AUTHORITY.fullmatch(found["authority"]) is None:
        raise Refused(problem(400, "The request's target must be a path, or an http or https URL without a user."))
    rest = found["rest"]
    path = rest if rest.startswith(b"/") else b"/" + rest
    return path, [*((name, value) for name, value in headers if name != b"host"), (b"host", found["authority"])]
