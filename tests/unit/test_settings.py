"""What ``hubbub config`` shows, and what it must not."""

from __future__ import annotations

import pytest

from hubbub.settings import load, shown


def test_passwords_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MYSQL_URL", "mysql://hubbub:se:cr/et@db:3306/hubbub")
    monkeypatch.setenv("HUBBUB_AMQP_URL", "amqp://hubbub:secret@mq:5672/")
    monkeypatch.setenv("HUBBUB_REDIS_URL", "redis://:secret@cache:6379/0")
    monkeypatch.setenv(
        "HUBBUB_MYSQL_REPLICAS", '["mysql://hubbub:secret@one/hubbub", "mysql://hubbub:secret@two/hubbub"]'
    )
    settings = shown(load())
    assert settings["mysql_url"] == "mysql://hubbub:…@db:3306/hubbub"
    assert settings["redis_url"] == "redis://:…@cache:6379/0"
    assert settings["mysql_replicas"] == "('mysql://hubbub:…@one/hubbub', 'mysql://hubbub:…@two/hubbub')"
    assert not any("secret" in value or "cr/et" in value for value in settings.values())


def test_flags_come_before_the_environment_and_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    file = f"{tmp_path}/hubbub.toml"
    with open(file, "w") as toml:
        toml.write("port = 1\nshards = 7\nuser_rate = 5\n")
    monkeypatch.setenv("HUBBUB_CONFIG", file)
    monkeypatch.setenv("HUBBUB_PORT", "2")
    monkeypatch.setenv("HUBBUB_SHARDS", "8")
    settings = load(port=3)
    assert (settings.port, settings.shards, settings.user_rate) == (3, 8, 5)
