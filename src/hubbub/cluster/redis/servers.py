"""All of a cluster's Redis servers: an application is kept in one of them, chosen by its token.

What belongs to a user travels with the application that is asked for, in one trip; so each server counts a user's
requests to its own applications, and a user's sessions have a version in each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from zlib import crc32

from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.keys import SCRIPTS


class Servers:
    """``clients`` has a connection to each; ``slot`` is a server's place among them, the same in every process."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.clients = [RedisClient(url, SCRIPTS) for url in urls]

    def slot_of(self, token: str) -> int:
        return crc32(token.encode()) % len(self.clients) if len(self.clients) > 1 else 0

    def of(self, token: str) -> RedisClient:
        return self.clients[self.slot_of(token)]

    def of_user(self, user_id: int) -> RedisClient:
        """Where a request is counted that asks for no application."""
        return self.clients[user_id % len(self.clients)]

    @property
    def fault(self) -> str | None:
        """What is wrong with the first that is not well."""
        return next((client.fault for client in self.clients if client.fault is not None), None)

    async def connected(self, within_s: float) -> bool:
        """Wait until all are, for so many seconds at most."""
        return all(await asyncio.gather(*(client.connected(within_s) for client in self.clients)))

    async def in_use(self, within_s: float) -> bool:
        """Wait until the generation of each is known, for so many seconds at most."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while loop.time() < until and any(client.keys is None for client in self.clients):  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.02)
        return all(client.keys is not None for client in self.clients)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients))
