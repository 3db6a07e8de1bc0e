"""Limits over several processes, and the hot data while Redis comes and goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.caches.redis import SCRIPTS, RedisCache
from hubbub.caches.redis_wire import RedisWire
from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.http.limits import LocalGate
from hubbub.loadtest.servers import Redis
from hubbub.stores.sqlite import SqliteStore
from tests.servers import need_servers


async def enter_in_turn(gates: list[RedisCache], times: int) -> None:
    for turn in range(times):
        await gates[turn % len(gates)].enter(1)


async def test_one_users_rate_counts_at_every_process(redis: Redis, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hubbub.db")
    wires = [RedisWire(redis.url, SCRIPTS) for _ in range(2)]
    for wire in wires:
        assert await wire.connected(10)
    gates = [RedisCache(wire, store, user_rate=20) for wire in wires]  # type: ignore[arg-type]
    with pytest.raises(RateLimited):  # the second may turn once in between
        await enter_in_turn(gates, 2 * 20 + 2)
    assert (await gates[0].enter(2)).mark == (await gates[1].enter(2)).mark
    await gates[0].sessions_changed(2)
    assert (await gates[1].enter(2)).mark == (await gates[0].enter(2)).mark != ""
    for wire in wires:
        await wire.close()
    store.close()


async def test_without_redis_calls_are_refused_at_once_and_limits_still_hold(tmp_path: Path) -> None:
    need_servers()
    server = Redis(tmp_path)
    server.start()
    store = SqliteStore(tmp_path / "hubbub.db")
    wire = RedisWire(server.url, SCRIPTS)
    assert await wire.connected(10)
    gate = RedisCache(wire, store, user_rate=1000, alone=LocalGate(5))  # type: ignore[arg-type]
    first = (await gate.enter(1)).mark
    server.kill()
    with pytest.raises(Unavailable):
        await wire.call("PING")
    with pytest.raises(Unavailable):
        wire.call("PING")
    assert wire.fault is not None
    assert (await gate.enter(1)).mark == "", "nothing may be remembered meanwhile"
    with pytest.raises(RateLimited):
        await enter_in_turn([gate], 11)
    server.start()
    assert await wire.connected(10)
    assert (await gate.enter(1)).mark not in ("", first), "another Redis vouches for nothing of the one before"
    await wire.close()
    server.stop()
    store.close()
