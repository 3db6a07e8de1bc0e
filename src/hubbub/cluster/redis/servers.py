"""All of a cluster's Redis servers: an application is kept in one of them, chosen by its token.

One round trip reads the state of the user together with the application that a request is for. So each server counts a
user's requests to its own applications, and has its own version of the user's sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from zlib import crc32

from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.keys import SCRIPTS


class Servers:
    """The clients of all servers. A server's ``slot`` is its index in ``clients``, the same in every process."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.clients = [RedisClient(url, SCRIPTS) for url in urls]

    def slot_of(self, token: str) -> int:
        return crc32(token.encode()) % len(self.clients) if len(self.clients) > 1 else 0

    def of(self, token: str) -> RedisClient:
        return self.clients[self.slot_of(token)]

    def of_user(self, user_id: int) -> RedisClient:
        """The server that counts a user's requests that are for no application."""
        return self.clients[user_id % len(self.clients)]

    @property
    def fault(self) -> str | None:
        """The fault of the first server that has one."""
        return next((client.fault for client in self.clients if client.fault is not None), None)

    async def connected(self, within_s: float) -> bool:
        """Wait until all are connected, at most ``within_s`` seconds. Returns whether they are."""
        return all(await asyncio.gather(*(client.connected(within_s) for client in self.clients)))

    async def in_use(self, within_s: float) -> bool:
        """Wait until the generation of each is known, at most ``within_s`` seconds. Returns whether it is."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while loop.time() < until and any(client.keys is None for client in self.clients):  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.02)
        return all(client.keys is not None for client in self.clients)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients))
