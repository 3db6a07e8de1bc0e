"""All of a cluster's Redis servers: an application is kept in one of them, chosen by its token.

What belongs to a user travels with the application that is asked for, in one trip; so each server counts a user's
requests to its own applications, and a user's sessions have a version in each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from zlib import crc32

from hubbub.cluster.redis.connection import RedisWire
from hubbub.cluster.redis.keys import SCRIPTS


class Servers:
    """``wires`` has a connection to each; ``slot`` is a server's place among them, the same in every process."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.wires = [RedisWire(url, SCRIPTS) for url in urls]

    def slot_of(self, token: str) -> int:
        return crc32(token.encode()) % len(self.wires) if len(self.wires) > 1 else 0

    def of(self, token: str) -> RedisWire:
        return self.wires[self.slot_of(token)]

    def of_user(self, user_id: int) -> RedisWire:
        """Where a request is counted that asks for no application."""
        return self.wires[user_id % len(self.wires)]

    @property
    def fault(self) -> str | None:
        """What is wrong with the first that is not well."""
        return next((wire.fault for wire in self.wires if wire.fault is not None), None)

    async def connected(self, within_s: float) -> bool:
        """Wait until all are, for so many seconds at most."""
        return all(await asyncio.gather(*(wire.connected(within_s) for wire in self.wires)))

    async def in_use(self, within_s: float) -> bool:
        """Wait until the generation of each is known, for so many seconds at most."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while loop.time() < until and any(wire.keys is None for wire in self.wires):  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.02)
        return all(wire.keys is not None for wire in self.wires)

    async def close(self) -> None:
        await asyncio.gather(*(wire.close() for wire in self.wires))
