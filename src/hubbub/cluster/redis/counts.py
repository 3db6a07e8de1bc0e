"""Counts against limits, over all processes of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from hubbub.chat.errors import Unavailable
from hubbub.chat.limits import Limit
from hubbub.chat.ports import Counts
from hubbub.cluster.redis.servers import Servers


class RedisCounts:
    """See chat.ports.Counts. All counts are in the first server, so that one round trip reads all of them; ``alone``
    counts for this process only, while that server can't be reached.
    """

    def __init__(self, servers: Servers, alone: Counts) -> None:
        self._client = servers.clients[0]
        self._alone = alone

    async def take(self, counted: Sequence[tuple[Limit, str]]) -> Callable[[], Awaitable[None]]:
        try:
            names = self._client.named()
            keys = [names.count(limit.name, key) for limit, key in counted]
            worth = [word for limit, _ in counted for word in (limit.each_ms, limit.most)]
            refused = await self._client.script("count", len(keys), *keys, *worth)
        except Unavailable:
            return await self._alone.take(counted)
        if refused:
            limit, key = counted[refused[0] - 1]
            raise limit.refusal(key, refused[1])

        async def give_back() -> None:
            failures = [(name, limit.each_ms) for name, (limit, _) in zip(keys, counted, strict=True) if limit.failures]
            try:
                await self._client.script(
                    "give_back", len(failures), *(name for name, _ in failures), *(each for _, each in failures)
                )
            except Unavailable:
                return  # the count stays one too high for a while, in a Redis that can hardly be reached

        return give_back
