"""Whose requests are counted together."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def network_of(host: str) -> str:
    """The address, or of IPv6 the network of 64 bits, which is the least that one customer of a provider has. What is
    no address, as where a proxy has a Unix socket and doesn't say for whom it asks, is one for all: the empty text.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, 64), strict=False))
