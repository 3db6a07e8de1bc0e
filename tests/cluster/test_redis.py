"""Rule 8: a caller gets a reply or Unavailable, whatever Redis answers. Also limits that several processes share."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from hubbub.chat.caller import Caller
from hubbub.chat.errors import RateLimited, Unavailable
from hubbub.chat.model import ChatKey, Role, User
from hubbub.chat.ports import Wants
from hubbub.cluster.protocol import shard_of
from hubbub.cluster.publisher import Reservation
from hubbub.cluster.redis import connection
from hubbub.cluster.redis.gate import RedisGate
from hubbub.cluster.redis.keys import Keys, names_of
from hubbub.cluster.redis.messages import RedisView
from hubbub.cluster.redis.pages import Applications, Pages
from hubbub.cluster.redis.servers import Servers
from hubbub.http.limits import LocalGate
from hubbub.loadtest.servers import Redis
from tests.conftest import eventually_async
from tests.servers import need_servers


@asynccontextmanager
async def connected(*urls: str) -> AsyncIterator[Servers]:
    servers = Servers(urls)
    assert await servers.connected(10)
    for client in servers.clients:
        client.keys = Keys(1)
    yield servers
    await servers.close()


def gate_of(servers: Servers, user_rate: int, alone: int = 1000) -> RedisGate:
    nothing = cast(Any, None)
    return RedisGate(servers, nothing, Applications(), Pages(10), user_rate=user_rate, alone=LocalGate(alone))


async def enter_in_turn(gates: list[RedisGate], times: int) -> None:
    for turn in range(times):
        await gates[turn % len(gates)].enter(1)


async def test_the_commands_that_wait_for_redis_are_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(redis.url) as servers:
        (client,) = servers.clients
        monkeypatch.setattr(connection, "_MOST_PENDING", len(client._pending) + 3)
        waiting = [client.call("PING") for _ in range(3)]
        with pytest.raises(Unavailable, match="too busy"):
            client.call("PING")
        assert await asyncio.gather(*waiting) == [b"PONG"] * 3
        assert await client.call("PING") == b"PONG"


async def test_a_users_rate_counts_over_all_processes(redis: Redis) -> None:
    redis.command("FLUSHALL")
    async with connected(redis.url) as one, connected(redis.url) as other:
        gates = [gate_of(servers, 20) for servers in (one, other)]
        await enter_in_turn(gates, 2 * 20)  # two seconds' worth at once, as in one process
        with pytest.raises(RateLimited):
            await enter_in_turn(gates, 2 * 20)
        assert (await gates[0].enter(2)).mark == (await gates[1].enter(2)).mark
        await (await gates[0].sessions_change(2))()
        assert (await gates[1].enter(2)).mark == (await gates[0].enter(2)).mark != ""


async def test_a_mark_stays_empty_if_the_end_of_the_change_cannot_reach_redis(redis: Redis) -> None:
    redis.command("FLUSHALL")
    async with connected(redis.url) as one, connected(redis.url) as other:
        gates = [gate_of(servers, 20) for servers in (one, other)]
        over = await gates[0].sessions_change(2)
        await one.close()
        await over()
        assert (await gates[1].enter(2)).mark == ""


def test_a_process_that_was_blocked_keeps_its_connection(redis: Redis) -> None:
    async def be_blocked() -> None:
        async with connected(redis.url) as servers:
            (client,) = servers.clients
            connection = client.connection
            for _ in range(3):  # its watch may be at any point
                answers = [client.call("PING") for _ in range(3)]
                await asyncio.sleep(0.01)
                more = [client.call("PING") for _ in range(3)]
                time.sleep(2.6)  # noqa: ASYNC251 - the test needs the loop blocked
                assert await asyncio.gather(*answers, *more) == [b"PONG"] * 6
                await asyncio.sleep(0.3)
            assert client.connection == connection

    uvloop.run(be_blocked())  # the loop that the processes use: it runs timers before it reads


async def test_a_redis_that_got_other_data_vouches_for_no_session(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LOOK_S", 60)
    async with connected(redis.url) as servers:
        gate = gate_of(servers, 1000)
        mark = (await gate.enter(1)).mark
        assert mark != ""
        redis.command("REPLICAOF 127.0.0.1 1")
        redis.command("REPLICAOF NO ONE")
        assert (await gate.enter(1, mark)).mark == "", "nothing may be remembered meanwhile"


async def test_without_redis_calls_are_refused_at_once_and_limits_still_hold(tmp_path: Path) -> None:
    need_servers()
    server = Redis(tmp_path)
    server.start()
    async with connected(server.url) as servers:
        (client,) = servers.clients
        gate = gate_of(servers, 1000, alone=5)
        first = (await gate.enter(1)).mark
        identity = client.identity
        server.kill()
        with pytest.raises(Unavailable):
            await client.call("PING")
        with pytest.raises(Unavailable):
            client.call("PING")
        assert client.fault is not None
        assert (await gate.enter(1)).mark == "", "nothing may be remembered meanwhile"
        with pytest.raises(RateLimited):
            await enter_in_turn([gate], 11)
        server.start()
        assert await client.connected(10)
        assert client.identity not in ("", identity), "another Redis vouches for nothing of the one before"
        with pytest.raises(Unavailable):  # its generation is not known yet
            client.named()
        client.keys = Keys(2)
        assert (await gate.enter(1)).mark not in ("", first)
    server.stop()


class Reservations:
    """A publisher for a gate that counts the reservations that are held."""

    def __init__(self) -> None:
        self.held = 0

    def shard_of(self, token: str) -> int:
        return 0

    def try_hold(self, token: str, characters: int, user_id: int) -> Reservation:
        self.held += 1
        return Reservation(0, characters, user_id)

    def release(self, reservation: Reservation) -> None:
        self.held -= 1


def busy_gate(servers: Servers, reservations: Reservations, token: str) -> RedisGate:
    """Return a gate that knows user 1 as a member of the application."""
    applications = Applications()
    applications.at(token, b"1").roles[1] = time.monotonic() + 60, Role.MEMBER
    alone = LocalGate(1000)
    return RedisGate(servers, cast(Any, reservations), applications, Pages(10), user_rate=1000, alone=alone)


async def scripts_run(servers: Servers) -> int:
    stats = re.search(rb"cmdstat_evalsha:calls=(\d+)", await servers.clients[0].call("INFO", "commandstats"))
    return int(stats[1]) if stats else 0


@pytest.mark.parametrize("text", ["t " * 15_000, "token%20", "token ", "t" * 65])
async def test_an_invalid_token_is_stored_nowhere(redis: Redis, text: str) -> None:
    async with connected(redis.url) as servers:
        gate = busy_gate(servers, Reservations(), "token")
        for wants in (Wants(ChatKey(text, 1), newest=10), Wants(ChatKey(text, 1), number=5), Wants(ChatKey(text, 0))):
            before = names_of.cache_info().currsize, shard_of.cache_info().currsize
            entry = await gate.enter(1, "", wants)
            assert entry.mark
            assert entry.brought is None
            assert (names_of.cache_info().currsize, shard_of.cache_info().currsize) == before
        assert not [key for key in await servers.clients[0].call("KEYS", "*") if text.encode() in key]


class OneApplication:
    """A store of one application with one member, user 1."""

    async def role(self, token: str, user_id: int) -> Role | None:
        return Role.MEMBER if (token, user_id) == ("there", 1) else None


async def test_applications_that_strangers_ask_for_are_soon_forgotten(redis: Redis) -> None:
    redis.command("FLUSHALL")
    async with connected(redis.url) as servers:
        (client,) = servers.clients
        applications, nothing = Applications(), cast(Any, None)
        gate = RedisGate(
            servers, cast(Any, Reservations()), applications, Pages(10), user_rate=1000, alone=LocalGate(1000)
        )
        view = RedisView(servers, cast(Any, OneApplication()), nothing, nothing, applications, Pages(10), nothing)

        async def lives(token: str) -> int:
            return int(await client.call("TTL", client.named().application(token)))

        async def asked(user_id: int, token: str) -> Role | None:
            entry = await gate.enter(user_id, "", Wants(ChatKey(token, 1), newest=10))
            return await view.role(Caller(User(user_id, "ref", "a@x", "A", 1), entry.brought), token)

        for token in ("random1", "random2", "there"):
            assert await asked(2, token) is None
            assert 0 < await lives(token) <= 60
        assert await asked(1, "there") is Role.MEMBER
        assert await lives("there") > 3600
        assert await asked(2, "there") is None
        assert await lives("there") > 3600
        # A version that is gone never comes back, so what was read at it isn't used.
        before = applications.get("there")
        assert before is not None
        await client.call("DEL", client.named().application("there"))
        assert await asked(1, "there") is Role.MEMBER
        after = applications.get("there")
        assert after is not None
        assert after.version != before.version
        assert await lives("there") > 3600
        await view._application("random3")
        assert 0 < await lives("random3") <= 60


async def test_requests_of_one_turn_share_a_script_but_few_that_read_messages_do(redis: Redis) -> None:
    async with connected(redis.url) as servers:
        gate = busy_gate(servers, Reservations(), "token")
        for wants, least, most in ((Wants(ChatKey("token", 0)), 1, 2), (Wants(ChatKey("token", 1), newest=10), 12, 14)):
            before = await scripts_run(servers)
            entries = await asyncio.gather(*(gate.enter(user, "", wants) for user in range(100, 200)))
            assert len({entry.mark for entry in entries}) == 100
            assert least <= await scripts_run(servers) - before <= most


async def test_an_error_of_one_request_does_not_affect_others(redis: Redis) -> None:
    async with connected(redis.url) as servers:
        gate = busy_gate(servers, Reservations(), "token")
        names = servers.clients[0].named()
        redis.command(f"LPUSH {names.user(7)} x")
        entries = await asyncio.gather(*(gate.enter(user, "", Wants(ChatKey("token", 0))) for user in (6, 7, 8)))
        assert [bool(entry.mark) for entry in entries] == [True, False, True]


async def test_a_cancelled_request_holds_no_reservation(redis: Redis) -> None:
    async with connected(redis.url) as servers:
        reservations = Reservations()
        gate = busy_gate(servers, reservations, "token")
        posts = [asyncio.create_task(gate.enter(1, "", Wants(ChatKey("token", 1), number=5))) for _ in range(20)]
        await asyncio.sleep(0)  # each runs until it waits
        assert reservations.held == 20
        for post in posts[:10]:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        assert reservations.held == 0


async def test_scripts_that_were_flushed_are_sent_again(redis: Redis) -> None:
    async with connected(redis.url) as servers:
        gate = gate_of(servers, 1000)
        before = (await gate.enter(5)).mark
        redis.command("SCRIPT FLUSH")
        assert (await gate.enter(5)).mark == before != ""


async def test_a_redis_that_refuses_writes_is_a_fault_until_it_takes_them(redis: Redis) -> None:
    async with connected(redis.url) as servers:
        (client,) = servers.clients
        assert client.fault is None
        redis.command("CONFIG SET min-replicas-to-write 1")
        try:
            with pytest.raises(Unavailable, match="NOREPLICAS"):
                await client.call("SET", "a", 1)
            await eventually_async(lambda: "refuses" in (client.fault or ""))
        finally:
            redis.command("CONFIG SET min-replicas-to-write 0")
        await eventually_async(lambda: client.fault is None)


async def test_numbers_are_refused_before_redis_is_full(redis: Redis) -> None:
    async with connected(redis.url) as servers:
        (client,) = servers.clients
        assert client.takes_numbers
        used = int((await client.call("INFO", "memory")).split(b"used_memory:")[1].split()[0])
        redis.command(f"CONFIG SET maxmemory {used + used // 20}")
        try:
            await eventually_async(lambda: not client.takes_numbers)
            assert client.fault is not None
        finally:
            redis.command("CONFIG SET maxmemory 0")
        await eventually_async(lambda: client.fault is None)


async def test_data_of_another_server_is_another_data_set(redis: Redis, tmp_path: Path) -> None:
    """A server becomes the replica of another and then a master again, and no connection is lost."""
    need_servers()
    other = Redis(tmp_path)
    other.start()
    async with connected(redis.url) as servers:
        (client,) = servers.clients
        before = client.identity
        redis.command(f"CONFIG SET masterauth {other.password}")
        redis.command(f"REPLICAOF 127.0.0.1 {other.port}")
        redis.command("REPLICAOF NO ONE")
        await eventually_async(lambda: client.identity not in ("", before))
    other.stop()
