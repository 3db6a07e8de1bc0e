"""Warnings at the start of a service that others can reach."""

from __future__ import annotations

from ipaddress import ip_address

from hubbub.settings import Settings


def risks(settings: Settings, address: str) -> list[str]:
    """A line for each, with the setting that takes it away. ``address`` is the one that is listened on."""
    if ip_address(address.partition("%")[0]).is_loopback:
        return []
    found = []
    if settings.tls_cert is None and not settings.proxies:
        found.append(
            f"Others can reach {address}, and passwords are sent unencrypted: set tls_cert and tls_key, "
            "or, behind a proxy that has TLS, proxies."
        )
    if settings.registration == "open":
        found.append(
            f"Others can reach {address}, and everybody may create an account: set registration to invited or closed "
            "if that is not wanted."
        )
    return found
