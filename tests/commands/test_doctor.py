"""``hubbub doctor`` reports what is right and what is wrong, and names the fix."""

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


def test_a_healthy_folder_is_reported(own_service: Service) -> None:
    status, output = doctor("--data", str(own_service.data))
    assert status == 0, output
    assert f"is served by process {own_service.process.pid}" in output
    newest = max(file.name[:4] for file in Path(hubbub.embedded.__file__).parent.glob("migrations/[0-9]*.py"))
    assert f"✓ database: schema {newest}" in output
    own_service.stop()
    status, output = doctor("--data", str(own_service.data))
    assert status == 0
    assert "is not being served" in output


def test_a_missing_folder_will_be_created(tmp_path: Path) -> None:
    status, output = doctor("--data", str(tmp_path / "new"))
    assert status == 0, output
    assert "hubbub serve will create" in output
    assert not (tmp_path / "new").exists(), "looking changes nothing"


def test_what_is_wrong_is_named_with_its_fix(own_service: Service) -> None:
    own_service.stop()
    (own_service.data / "secret").chmod(0o644)
    (own_service.data / "hubbub.db").write_bytes(b"no database" * 1000)
    status, output = doctor("--data", str(own_service.data))
    assert status == 1
    assert "✗ secret: others may read it (644)" in output
    assert "chmod 600" in output
    assert "✗ database:" in output
    assert "hubbub restore" in output


def test_a_healthy_cluster_is_reported(cluster: ClusterStack) -> None:
    status, output = doctor(**cluster.settings)
    assert status == 0, output
    for part in ("mysql", "rabbitmq", "redis"):
        assert f"✓ {part}: answers, version" in output
    assert "✓ mysql: may create tables" in output
    assert "confirms a message in a quorum queue" in output


@pytest.mark.parametrize("part", ["mysql", "rabbitmq", "redis", "search"])
def test_a_server_that_is_away_is_named_and_no_password_is(cluster: ClusterStack, part: str) -> None:
    setting = {"mysql": "MYSQL", "rabbitmq": "AMQP", "redis": "REDIS", "search": "SEARCH"}[part]
    scheme = {"mysql": "mysql", "rabbitmq": "amqp", "redis": "redis", "search": "http"}[part]
    place = "127.0.0.1:1/hubbub" if part == "mysql" else "127.0.0.1:1/"
    away = {f"HUBBUB_{setting}_URL": f"{scheme}://ann:very-secret@{place}"}
    status, output = doctor(**{**cluster.settings, **away})
    assert status == 1
    assert f"✗ {part}: {place} can't be used" in output
    assert "very-secret" not in output


def test_a_half_configured_cluster_is_told_what_is_missing(cluster: ClusterStack) -> None:
    status, output = doctor(HUBBUB_REDIS_URL=cluster.settings["HUBBUB_REDIS_URL"])
    assert status == 1
    assert "HUBBUB_MYSQL_URL" in output
    assert "HUBBUB_AMQP_URL" in output


def test_a_redis_that_evicts_is_found(cluster: ClusterStack) -> None:
    cluster.redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        status, output = doctor(**cluster.settings)
    finally:
        cluster.redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert status == 1
    assert "✗ redis: evicts (allkeys-lru)" in output


def found(part: str, **settings: Any) -> list[Finding]:
    """Return the findings about one part that name a fix."""
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


def test_a_database_that_accepts_too_little_is_found(mariadb: MariaDb) -> None:
    mariadb.root("SET GLOBAL max_allowed_packet = 4194304")
    try:
        (finding,) = found("mysql", mysql_url=new_database(mariadb))
    finally:
        mariadb.root("SET GLOBAL max_allowed_packet = 16777216")
    assert finding.said == "accepts statements of 4 MiB at most"
    assert found("mysql", mysql_url=new_database(mariadb)) == []


def test_a_session_that_would_keep_its_locks_is_found() -> None:
    """A proxy that does not pass the setting on would have this effect."""
    (finding,) = _sessions(lambda sql: "28800" if "wait_timeout" in sql else "16777216")
    assert finding.said == "a session that has lost its process keeps its locks for 28800 s"


def test_anything_that_waits_for_an_operator_is_found(mariadb: MariaDb) -> None:
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
    """RabbitMQ 4 has such a queue after an upgrade. The one here is older, so its version is faked."""
    asyncio.run(declare_as_0_1_0_did(rabbitmq.url))
    assert found("rabbitmq", amqp_url=rabbitmq.url) == []
    monkeypatch.setattr(broker, "version_of", lambda _: "4.1.0")
    (finding,) = found("rabbitmq", amqp_url=rabbitmq.url)
    assert "hubbub.shard.0" in finding.said
    assert "delivery-limit" in finding.fix
    assert not finding.serious
