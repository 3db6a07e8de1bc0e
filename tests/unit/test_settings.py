"""What ``hubbub config`` shows, and what it must not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hubbub.logs import without_passwords
from hubbub.settings import load, shown


def test_passwords_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MYSQL_URL", "mysql://hubbub:se:cr/et@db:3306/hubbub")
    monkeypatch.setenv("HUBBUB_AMQP_URL", "amqp://hubbub:secret@mq:5672/")
    monkeypatch.setenv("HUBBUB_REDIS_URL", "redis://:secret@cache:6379/0")
    monkeypatch.setenv(
        "HUBBUB_MYSQL_REPLICAS", '["mysql://hubbub:secret@one/hubbub", "mysql://hubbub:secret@two/hubbub"]'
    )
    monkeypatch.setenv("HUBBUB_TRACE_URL", "https://hubbub:sec@ret@traces:4318/v1/traces")
    monkeypatch.setenv("HUBBUB_SEARCH_URL", "http://elastic:secret@search:9200")
    monkeypatch.setenv("HUBBUB_SMTP_URL", "smtp://chat:secret@mail:587")
    monkeypatch.setenv("HUBBUB_MAIL_FROM", "chat@example.com")
    monkeypatch.setenv("HUBBUB_PUBLIC_URL", "https://chat.example.com")
    monkeypatch.setenv("HUBBUB_OPERATORS", '["ann@example.com"]')
    settings = shown(load())
    assert settings["mysql_url"] == "mysql://hubbub:…@db:3306/hubbub"
    assert settings["redis_url"] == "redis://:…@cache:6379/0"
    assert settings["mysql_replicas"] == "('mysql://hubbub:…@one/hubbub', 'mysql://hubbub:…@two/hubbub')"
    assert settings["trace_url"] == "https://hubbub:…@traces:4318/v1/traces"
    assert settings["search_url"] == "http://elastic:…@search:9200"
    assert not any("secret" in value or "cr/et" in value or "ret@" in value for value in settings.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("redis://:a,b@one,redis://:c@two", "redis://:…@one,redis://:…@two"),
        ("https://token@traces/v1", "https://…@traces/v1"),
        ("http://traces:4318/v1/traces", "http://traces:4318/v1/traces"),
        (
            "at http://user:pass@word@host:1/ nobody answers ann@example.com",
            "at http://user:…@host:1/ nobody answers ann@example.com",
        ),
    ],
)
def test_what_is_a_password(text: str, said: str) -> None:
    assert without_passwords(text) == said


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"smtp_url": "mail.example.com"}, "smtp_url"),
        ({"smtp_url": "smtp://mail:no"}, "smtp_url"),
        ({"smtp_url": "smtp://mail", "public_url": "https://chat"}, "mail_from"),
        ({"smtp_url": "smtp://mail", "mail_from": "a@x"}, "public_url"),
        ({"public_url": "chat.example.com"}, "public_url"),
        ({"registration": "sometimes"}, "registration"),
    ],
)
def test_a_wrong_setting_of_mail_or_registration_is_named(given: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError) as error:
        load(**given)
    assert [each["loc"] for each in error.value.errors()] == [(named,)]


def test_flags_come_before_the_environment_and_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    file = f"{tmp_path}/hubbub.toml"
    with open(file, "w") as toml:
        toml.write("port = 1\nshards = 7\nuser_rate = 5\n")
    monkeypatch.setenv("HUBBUB_CONFIG", file)
    monkeypatch.setenv("HUBBUB_PORT", "2")
    monkeypatch.setenv("HUBBUB_SHARDS", "8")
    settings = load(port=3)
    assert (settings.port, settings.shards, settings.user_rate) == (3, 8, 5)
