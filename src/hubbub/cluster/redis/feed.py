"""A feed that all API processes of a cluster share: Redis' channels, one for each chat that has listeners.

The feed has its own connection to each server, because a connection that has subscribed can't do anything else. Events
that are published while it is down are lost, so every listener then reads its chat again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from hubbub.chat.errors import Unavailable
from hubbub.chat.feed import Event, Feed
from hubbub.chat.model import ChatKey
from hubbub.cluster.redis.connection import RedisClient
from hubbub.cluster.redis.entries import json_of, names_sender
from hubbub.cluster.redis.keys import channel
from hubbub.cluster.redis.servers import Servers

log = logging.getLogger("hubbub.redis")


class RedisFeed:
    """``feed`` is what listeners use. scripts/show.lua publishes."""

    def __init__(self, urls: Sequence[str], servers: Servers) -> None:
        self.feed = Feed(self._watch, self._unwatch)
        self._servers = servers
        self._clients = [RedisClient(url, {}, pushed=self._pushed, connected=self._connected) for url in urls]
        self._telling: set[asyncio.Task[None]] = set()

    def _watch(self, key: ChatKey) -> None:
        self._tell("SUBSCRIBE", key)

    def _unwatch(self, key: ChatKey) -> None:
        self._tell("UNSUBSCRIBE", key)

    def _connected(self) -> None:
        for key in self.feed.chats():
            self._watch(key)
        self.feed.missed()

    def _tell(self, command: str, key: ChatKey) -> None:
        task = asyncio.get_running_loop().create_task(self._send(command, key))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _send(self, command: str, key: ChatKey) -> None:
        try:
            await self._clients[self._servers.slot_of(key.token)].call(command, channel(key))
            if command == "SUBSCRIBE":
                self.feed.missed(key)  # events published before the subscription took effect did not arrive
        except Unavailable as error:
            log.info("A chat's events continue once Redis can be reached: %s", error)

    def _pushed(self, name: bytes, data: bytes) -> None:
        _, token, number = name.decode().split(":")
        message, _, entry = data.partition(b" ")
        key = ChatKey(token, int(number))
        if entry and not names_sender(entry):  # from a version before 0.2: reading it again adds the public id
            self.feed.missed(key)
        else:
            self.feed.publish(key, Event(int(message), json_of(entry) if entry else None))

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
