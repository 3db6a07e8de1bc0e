"""Keeps pages of other sites from acting for a user whose browser sends the cookie (cross-site request forgery).

SameSite=Lax keeps the cookie from other sites, but a site is a domain with all of its hosts and ports. Browsers say
where a request comes from: ``Sec-Fetch-Site`` (Fetch Metadata) where the connection is secure, ``Origin`` with every
POST, PUT, PATCH and DELETE. Programs send neither.
"""

from __future__ import annotations

from collections.abc import Mapping

from hubbub.chat.errors import Forbidden


def must_be_own_page(headers: Mapping[bytes, bytes]) -> None:
    """Raises Forbidden for a request that another site's page made, unless it brings a token: no page has one."""
    if headers.get(b"authorization", b"")[:7].lower() == b"bearer ":  # a browser sends Basic by itself
        return
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        own = site in (b"same-origin", b"none")
    else:
        origin = headers.get(b"origin")
        own = origin is None or origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower()
    if not own:
        raise Forbidden("A page of another site may not do this with the cookie; send Authorization: Bearer TOKEN.")
