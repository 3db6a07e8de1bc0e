"""What several suites need to reach a Redis of their adapters'."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hubbub.cluster.redis.keys import Keys
from hubbub.cluster.redis.servers import Servers
from hubbub.loadtest.servers import Redis


@pytest.fixture
async def servers(redis: Redis) -> AsyncIterator[Servers]:
    """One Redis, in its first generation."""
    servers = Servers([redis.url])
    assert await servers.connected(10)
    servers.wires[0].keys = Keys(1)
    yield servers
    await servers.close()
