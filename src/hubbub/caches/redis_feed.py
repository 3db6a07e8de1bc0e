"""A feed that all API processes of a cluster share: Redis' channels, one for each chat that somebody listens to.

A connection of its own, for one that subscribes can't do anything else. What is published while it is down is lost, so
every listener then reads its chat again.
"""

from __future__ import annotations

import asyncio
import logging

from hubbub.caches.redis_wire import RedisWire, ScriptFailed
from hubbub.chat.errors import Unavailable
from hubbub.chat.feed import Event, Feed
from hubbub.chat.model import ChatKey

log = logging.getLogger("hubbub.redis")


def channel(key: ChatKey) -> str:
    return f"feed:{key.token}:{key.number}"


class RedisFeed:
    """``feed`` is what listeners use. scripts/settle.lua and scripts/change.lua publish."""

    def __init__(self, url: str) -> None:
        self.feed = Feed(self._watch, self._unwatch)
        self._wire = RedisWire(url, {}, pushed=self._pushed, connected=self._connected)
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
            await self._wire.call(command, channel(key))
        except (Unavailable, ScriptFailed) as error:
            log.info("A chat is listened to again once Redis can be reached: %s", error)

    def _pushed(self, name: bytes, data: bytes) -> None:
        _, token, number = name.decode().split(":")
        message, *item = data.split(b" ", 4)  # a post brings what settle.lua keeps, which ends with its JSON
        self.feed.publish(ChatKey(token, int(number)), Event(int(message), item[-1] if item else None))

    async def close(self) -> None:
        await self._wire.close()
