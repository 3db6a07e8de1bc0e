"""The address under which requests are counted together."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def network_of(host: str) -> str:
    """The address, or with IPv6 its network of 64 bits, the smallest that a provider gives to a customer. The empty
    text if there is no address, as when a proxy on a Unix socket doesn't name its client: all of these count together.
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
