"""Limits what clients may use of the process's memory and connections: each address a share, so that it leaves room
for others, and all addresses together a total.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container

_IPV6_PREFIX = 64  # what one customer of a network has, at the least

EXEMPT = ""


def address_of(host: str, trusted: Container[str]) -> str:
    """The key of a client's share: its address, or with IPv6 its network. A trusted proxy has many clients, and so may
    a proxy on this machine: they are EXEMPT.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return EXEMPT  # no address of a network
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or host in trusted:
        return EXEMPT
    if address.version == 6:
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False).network_address)
    return str(address)


class Share:
    """``used`` is how much is taken in all, of ``total``; an address that is not EXEMPT may have ``each`` of it."""

    def __init__(self, total: int, each: int) -> None:
        self.total = total
        self.each = each
        self.used = 0
        self._by: dict[str, int] = {}

    def of(self, address: str) -> int:
        return self._by.get(address, 0)

    def address_has_room(self, address: str, more: int) -> bool:
        return address == EXEMPT or self.of(address) + more <= self.each

    def has_room(self, more: int) -> bool:
        return self.used + more <= self.total

    def take(self, address: str, more: int) -> None:
        """Take ``more`` of the share; a negative ``more`` gives back."""
        self.used += more
        left = self.of(address) + more
        if left:
            self._by[address] = left
        else:
            self._by.pop(address, None)
