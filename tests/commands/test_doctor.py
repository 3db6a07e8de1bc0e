"""``hubbub doctor``: what it finds in good and in bad order, and the mend it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Service


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
    assert "✓ database: schema 0002" in said
    own_service.stop()
    status, said = doctor("--data", str(own_service.data))
    assert status == 0
    assert "is served by nobody now" in said


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    status, said = doctor("--data", str(tmp_path / "new"))
    assert status == 0, said
    assert "will be made by hubbub serve" in said
    assert not (tmp_path / "new").exists(), "looking changes nothing"


def test_what_is_wrong_is_named_with_its_mend(own_service: Service) -> None:
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
    assert "✓ mysql: may make tables" in said
    assert "confirms a message in a quorum queue" in said


@pytest.mark.parametrize("part", ["mysql", "rabbitmq", "redis", "search"])
def test_a_server_that_is_away_is_named_and_no_password_is(cluster: ClusterStack, part: str) -> None:
    setting = {"mysql": "MYSQL", "rabbitmq": "AMQP", "redis": "REDIS", "search": "SEARCH"}[part]
    scheme = {"mysql": "mysql", "rabbitmq": "amqp", "redis": "redis", "search": "http"}[part]
    away = {f"HUBBUB_{setting}_URL": f"{scheme}://ann:very-secret@127.0.0.1:1/"}
    status, said = doctor(**{**cluster.settings, **away})
    assert status == 1
    assert f"✗ {part}: 127.0.0.1:1/ can't be used" in said
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
