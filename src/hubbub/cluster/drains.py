"""Finds out when all commands that were queued before a Redis was lost are stored: then reads of chats that are not
live need not say that they may lag.
"""

from __future__ import annotations

import asyncio

from hubbub.chat.errors import Unavailable
from hubbub.cluster.protocol import Barrier
from hubbub.cluster.publisher import Publisher
from hubbub.cluster.redis.gate import unique
from hubbub.cluster.redis.servers import Servers

_LOOK_S = 0.5
_ANNOUNCED_MS = 10_000


async def watch(servers: Servers, publisher: Publisher) -> None:
    """Send a barrier through each shard that is not known to be drained, in each Redis. Runs until cancelled."""
    while True:
        for slot in range(len(servers.clients)):
            try:
                await _look(servers, slot, publisher)
            except Unavailable:
                continue  # it is looked at again
        await asyncio.sleep(_LOOK_S)


async def _look(servers: Servers, slot: int, publisher: Publisher) -> None:
    client = servers.clients[slot]
    names = client.named()
    known = await client.call("MGET", *(names.drained(shard) for shard in range(publisher.shards)))
    for shard, drained in enumerate(known):
        if drained is not None:
            continue
        # Announced before it is sent, as a chat's marker is: if the announcement is gone when the writer comes,
        # something was lost since. One at a time; after a while another is sent.
        candidate = unique()
        if await client.call("SET", names.barrier(shard), candidate, "NX", "PX", _ANNOUNCED_MS):
            publisher.accept_barrier(shard, Barrier(slot, candidate, names.generation))
