"""Finds out when all commands that were queued before a loss of Redis are stored. From then on, reads of chats that are
not live need not report a possible lag.
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
                continue  # the next round checks it again
        await asyncio.sleep(_LOOK_S)


async def _look(servers: Servers, slot: int, publisher: Publisher) -> None:
    client = servers.clients[slot]
    names = client.named()
    known = await client.call("MGET", *(names.drained(shard) for shard in range(publisher.shards)))
    for shard, drained in enumerate(known):
        if drained is not None:
            continue
        # It is announced before it is sent, like a chat's marker: if the announcement is missing when the writer
        # reaches the barrier, data was lost since. There is one at a time; after a while another one is sent.
        candidate = unique()
        if await client.call("SET", names.barrier(shard), candidate, "NX", "PX", _ANNOUNCED_MS):
            publisher.accept_barrier(shard, Barrier(slot, candidate, names.generation))
