"""``hubbub doctor``: what it finds when all is well and when something is wrong, and the fix that it names."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hubbub.embedded
from hubbub.cluster import broker
from hubbub.cluster.protocol import Delivery, encode
from hubbub.doctor import Finding, _sessions, examine
from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.servers import MariaDb, RabbitMq, Redis
from hubbub.settings import Settings
from tests.conftest import Service
from tests.ports.stores import ClusterStore
from tests.servers import new_database


def doctor(*arguments: str, **environment: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, "-m", "hubbub", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stdout


def test_a_folder_in_good_order(own_service: Service) -> None:
    status, said = doctor("--data", str(own_service.data))
    assert status == 0, said
    assert f"is served by process {own_service.process.pid}" in said
    newest = max(file.name[:4] for file in Path(hubbub.embedded.__file__).parent.glob("migrations/[0-9]*.py"))
    assert f"✓ database: schema {newest}" in said
    own_service.stop()
    status, said = doctor("--data", str(own_service.data))
    assert status == 0
    assert "is not being served" in said


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    status, said = doctor("--data", str(tmp_path / "new"))
    assert status == 0, said
    assert "hubbub serve will create" in said
    assert not (tmp_path / "new").exists(), "looking changes nothing"


def test_what_is_wrong_is_named_with_its_fix(own_service: Service) -> None:
    own_service.stop()
    (own_service.data / "secret").chmod(0o644)
    (own_service.data / "hubbub.db").write_bytes(b"no database" * 1000)
    status, said = doctor("--data", str(own_service.data))
    assert status == 1
    assert "✗ secret: others may read it (644)" in said
    assert "chmod 600" in said
    assert "✗ database:" in said
    assert "hubbub restore" in said


def test_a_cluster_in_good_order(cluster: ClusterStack) -> None:
    status, said = doctor(**cluster.settings)
    assert status == 0, said
    for part in ("mysql", "rabbitmq", "redis"):
        assert f"✓ {part}: answers, version" in said
    assert "✓ mysql: may create tables" in said
    assert "confirms a message in a quorum queue" in said


@pytest.mark.parametrize("part", ["mysql", "rabbitmq", "redis", "search"])
def test_a_server_that_is_away_is_named_and_no_password_is(cluster: ClusterStack, part: str) -> None:
    setting = {"mysql": "MYSQL", "rabbitmq": "AMQP", "redis": "REDIS", "search": "SEARCH"}[part]
    scheme = {"mysql": "mysql", "rabbitmq": "amqp", "redis": "redis", "search": "http"}[part]
    place = "127.0.0.1:1/hubbub" if part == "mysql" else "127.0.0.1:1/"
    away = {f"HUBBUB_{setting}_URL": f"{scheme}://ann:very-secret@{place}"}
    status, said = doctor(**{**cluster.settings, **away})
    assert status == 1
    assert f"✗ {part}: {place} can't be used" in said
    assert "very-secret" not in said


def test_half_a_cluster_is_told_what_is_missing(cluster: ClusterStack) -> None:
    status, said = doctor(HUBBUB_REDIS_URL=cluster.settings["HUBBUB_REDIS_URL"])
    assert status == 1
    assert "HUBBUB_MYSQL_URL" in said
    assert "HUBBUB_AMQP_URL" in said


def test_a_redis_that_evicts_is_found(cluster: ClusterStack) -> None:
    cluster.redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        status, said = doctor(**cluster.settings)
    finally:
        cluster.redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert status == 1
    assert "✗ redis: evicts (allkeys-lru)" in said


def found(part: str, **settings: Any) -> list[Finding]:
    """The findings on one part that name a fault."""
    return [finding for finding in examine(Settings(**settings)) if finding.part == part and finding.fix]


def test_a_redis_that_is_full_or_a_copy_is_found(redis: Redis) -> None:
    (finding,) = found("redis", redis_url=redis.url)
    assert (finding.said, finding.serious) == ("has no maxmemory: it grows until the machine has no memory left", False)
    used = int(redis.command("INFO memory").split(b"used_memory:")[1].split()[0])
    try:
        for most, serious in ((used * 5 // 4, False), (used * 20 // 19, True)):
            redis.command(f"CONFIG SET maxmemory {most}")
            (finding,) = found("redis", redis_url=redis.url)
            assert "% full" in finding.said
            assert ("posts are refused" in finding.said) == finding.serious == serious
        redis.command(f"CONFIG SET maxmemory {used * 100}")
        assert found("redis", redis_url=redis.url) == []
        redis.command("REPLICAOF 127.0.0.1 1")
        (finding,) = found("redis", redis_url=redis.url)
        assert finding.said == "is a copy of 127.0.0.1, and takes no writes"
    finally:
        redis.command("REPLICAOF NO ONE")
        redis.command("CONFIG SET maxmemory 0")


def test_the_same_redis_twice_is_found(redis: Redis) -> None:
    twice = [finding for finding in found("redis", redis_url=f"{redis.url},{redis.url}") if finding.serious]
    assert [finding.said for finding in twice] == [f"127.0.0.1:{redis.port} is named twice"]


def test_a_database_that_takes_too_little_is_found(mariadb: MariaDb) -> None:
    mariadb.root("SET GLOBAL max_allowed_packet = 4194304")
    try:
        (finding,) = found("mysql", mysql_url=new_database(mariadb))
    finally:
        mariadb.root("SET GLOBAL max_allowed_packet = 16777216")
    assert finding.said == "accepts statements of 4 MiB at most"
    assert found("mysql", mysql_url=new_database(mariadb)) == []


def test_a_session_that_would_keep_its_locks_is_found() -> None:
    """As behind a proxy that does not pass the setting on."""
    (finding,) = _sessions(lambda sql: "28800" if "wait_timeout" in sql else "16777216")
    assert finding.said == "a session that has lost its process keeps its locks for 28800 s"


def test_what_waits_for_an_operator_is_found(mariadb: MariaDb) -> None:
    url = new_database(mariadb)
    store = ClusterStore(url)
    rows = "(shard, at, kind, token, chat, number, reason, acknowledged, command)"
    store.database.run(
        lambda cursor: cursor.execute(
            f"INSERT INTO set_aside {rows} VALUES (0, 1, 'PostMessage', 't', 1, 1, 'why', TRUE, ''),"
            " (0, 1, 'PostMessage', 't', 1, 2, 'why', FALSE, ''), (0, 1, 'PostMessage', 't', 1, 3, 'why', FALSE, '')"
        )
    )
    store.database.run(
        lambda cursor: cursor.execute(
            "INSERT INTO holes (shard, publisher, expected, found, state, at)"
            " VALUES (0, 'p', 1, 2, 'stopped', 1), (1, 'p', 1, 2, 'accepted', 1)"
        )
    )
    store.close()
    (shard,) = found("shards", mysql_url=url)
    assert (shard.said.split(",")[0], shard.serious) == ("1 stopped", True)
    assert "--accept-loss" in shard.fix
    acknowledged, others = found("set aside", mysql_url=url)
    assert (acknowledged.said[:1], acknowledged.serious, others.said[:1], others.serious) == ("1", True, "2", False)


async def declare_as_0_1_0_did(url: str) -> None:
    connection = await broker.connect(url, "test")
    channel = await connection.channel(publisher_confirms=True)
    await broker.declare(connection, channel, 0)
    await broker.publish(channel, broker.queue_name(0), encode(Delivery("doctor", 1, [], 0)))
    await broker.close(connection)


def test_a_queue_with_a_delivery_limit_is_found(rabbitmq: RabbitMq, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a RabbitMQ 4 that was upgraded: the one here is older, and refuses the same declaration."""
    asyncio.run(declare_as_0_1_0_did(rabbitmq.url))
    assert found("rabbitmq", amqp_url=rabbitmq.url) == []
    monkeypatch.setattr(broker, "version_of", lambda _: "4.1.0")
    (finding,) = found("rabbitmq", amqp_url=rabbitmq.url)
    assert "hubbub.shard.0" in finding.said
    assert "delivery-limit" in finding.fix
    assert not finding.serious
