"""How much of what stays one user may make, counted over all processes of a cluster."""

from __future__ import annotations

from hubbub.chat.errors import Unavailable
from hubbub.chat.quotas import Hourly, Made, Quotas, made_too_many
from hubbub.cluster.redis.servers import Servers


class RedisQuotas:
    """See chat.quotas.Quotas. ``alone`` counts for this process while Redis can't be asked."""

    def __init__(self, servers: Servers, hourly: Hourly, alone: Quotas) -> None:
        self._servers = servers
        self._hourly = hourly
        self._alone = alone

    async def take(self, user_id: int, what: Made) -> None:
        wire = self._servers.of_user(user_id)
        limit = self._hourly.of(what)
        try:
            early_ms = await wire.script("quota", 1, wire.named().made(user_id, what), limit)
        except Unavailable:
            await self._alone.take(user_id, what)
            return
        if early_ms:
            raise made_too_many(what, limit, early_ms / 1000)
