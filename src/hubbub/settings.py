"""All settings: flags over HUBBUB_… environment variables over a TOML file over these defaults."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from hubbub import setting_kinds as kinds
from hubbub.chat.quotas import Hourly
from hubbub.logs import without_passwords
from hubbub.setting_sources import (
    FileUnusable,
    SettingValue,
    from_environment,
    from_file,
    from_flags,
    unknown_variables,
)


class SettingsWrong(Exception):
    """One or more settings are wrong; ``faults`` has a line for each, which names it, its source and what to write.
    ``log_format`` is the setting, where that is right.
    """

    def __init__(self, faults: list[str], log_format: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
        self.log_format = log_format


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    host: kinds.Host = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(3000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data: Path = Field(Path("hubbub-data"), description="Folder of the embedded mode's database and secret.")
    processes: int = Field(
        0, ge=0, le=16, description="Processes of `hubbub serve` that serve clients; 0: what suits the cores, 1 to 4."
    )
    user_rate: int = Field(2000, ge=1, description="Requests a second that one user may send.")
    user_applications_per_hour: int = Field(
        100, ge=1, le=3_600_000, description="Applications that one user may make in an hour."
    )
    user_chats_per_hour: int = Field(3000, ge=1, le=3_600_000, description="Chats that one user may make in an hour.")
    user_members_per_hour: int = Field(
        1000,
        ge=1,
        le=3_600_000,
        description="Members that one user may add in an hour; an attempt that adds nobody counts too.",
    )
    user_invites_per_hour: int = Field(
        100, ge=1, le=3_600_000, description="Invites that one user may make in an hour."
    )
    user_streams: int = Field(100, ge=1, description="Streams that one user may have open at a process.")
    queue_commands: int = Field(20_000, ge=1, description="Writes at a process that may wait for the disk before 503.")
    mysql_url: kinds.MySqlUrl = Field(
        "",
        examples=["mysql://USER:PASSWORD@HOST:3306/DATABASE"],
        description="Cluster: mysql://USER:PASSWORD@HOST:PORT/DATABASE.",
    )
    amqp_url: kinds.AmqpUrl = Field(
        "",
        examples=["amqp://USER:PASSWORD@HOST:5672/"],
        description="Cluster: amqp://USER:PASSWORD@HOST:PORT/ of RabbitMQ (amqps: with TLS, ?cafile=FILE).",
    )
    redis_url: kinds.RedisUrls = Field(
        "",
        examples=["redis://:PASSWORD@HOST:6379/0"],
        description="Cluster: redis://:PASSWORD@HOST:PORT/0 (rediss: with TLS); several, with commas, share the load.",
    )
    search_url: kinds.SearchUrl = Field(
        "",
        examples=["http://USER:PASSWORD@HOST:9200"],
        description="Cluster: http://USER:PASSWORD@HOST:9200, OpenSearch's or Elasticsearch's.",
    )
    mysql_replicas: kinds.MySqlUrls = Field(
        (),
        examples=["mysql://USER:PASSWORD@HOST:3306/DATABASE"],
        description="Cluster: URLs of read-only copies, with commas between.",
    )
    shards: int = Field(
        4, ge=1, le=256, description="Cluster: queues that writes are split over; set at the first start."
    )
    mysql_pool: int = Field(8, ge=2, le=200, description="Cluster: database connections of each process.")
    proxies: kinds.Networks = Field(
        (),
        examples=["127.0.0.1,10.0.0.0/8"],
        description="Addresses or networks whose X-Forwarded-For and -Proto are trusted, with commas between.",
    )
    address_connections: int = Field(
        1000,
        ge=1,
        description="Connections that one address (IPv6: a /64) may have at a process. Not of proxies or loopback.",
    )
    operators: kinds.Emails = Field(
        (),
        examples=["ann@example.com,bob@example.com"],
        description="Emails of operators, with commas between, beside those that `hubbub operators` names.",
    )
    registration: Literal["open", "invited", "closed"] = Field(
        "open", description="Who may make an account: anybody (open), who has an invite (invited), nobody (closed)."
    )
    smtp_url: kinds.SmtpUrl = Field(
        "",
        examples=["smtp://USER:PASSWORD@HOST:587"],
        description="Mail server, smtp://USER:PASSWORD@HOST:587 (or smtps:, port 465); without it, nothing is mailed.",
    )
    mail_from: kinds.Sender = Field(
        "",
        examples=["chat@example.com"],
        description="Sender of the mails, chat@example.com; needed with smtp_url.",
    )
    public_url: kinds.WebUrl = Field(
        "",
        examples=["https://chat.example.com"],
        description="Where people reach this service, https://chat.example.com; links use it. Needed with smtp_url.",
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people (text) or programs (json).")
    access_log: bool = Field(
        False, description="A log line for each request: address, user's id, method, path, status, duration."
    )
    trace_url: kinds.WebUrl = Field(
        "",
        examples=["http://HOST:4318/v1/traces"],
        description="OTLP/HTTP collector, http://HOST:4318/v1/traces; without it, traces are off.",
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Cluster: port of a writer's /metrics; 0 has none. (An API process has its own.)"
    )
    tls_cert: Path | None = Field(
        None,
        examples=["/etc/hubbub/cert.pem"],
        description="PEM file of the certificate; serves HTTPS together with tls_key.",
    )
    tls_key: Path | None = Field(
        None, examples=["/etc/hubbub/key.pem"], description="PEM file of the certificate's key."
    )

    @property
    def hourly(self) -> Hourly:
        return Hourly(
            self.user_applications_per_hour,
            self.user_chats_per_hour,
            self.user_members_per_hour,
            self.user_invites_per_hour,
        )

    @property
    def serving_processes(self) -> int:
        """How many processes of `hubbub serve` serve clients."""
        return self.processes or _serving_processes(len(os.sched_getaffinity(0)))

    @property
    def redis_urls(self) -> list[str]:
        """Of each Redis server, in the order that every process must have."""
        return [url.strip() for url in self.redis_url.split(",") if url.strip()]

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, about: ValidationInfo) -> Any:
        """What a text stands for, where pydantic would not take it or would take too much."""
        kind = cls.model_fields[about.field_name or ""].annotation
        if get_origin(kind) is tuple:
            return kinds.items(value)
        if kind is int and isinstance(value, bool):
            raise ValueError(f"{kinds.quoted(value)} is not {_wanted(about.field_name or '')}.")
        if _is_path(kind) and isinstance(value, (str, Path)):
            return None if not str(value) and kind is not Path else kinds.path(value)
        return value


def _serving_processes(cores: int) -> int:
    """How many processes make good use of the cores.

    For a request, a process that serves takes some 58 us of a core, the one that commits 14 and the one that indexes 9.
    So about four that serve keep the one that commits busy, and more would only wait for it. Two cores are for those
    two, which leave enough of them to one that serves: on two cores, one is best.
    """
    return max(1, min(4, cores - 2))


def shown(settings: Settings) -> dict[str, str]:
    """Every setting in force, passwords hidden."""
    return {name: without_passwords(_text(value)) for name, value in settings}


def load(*, files: bool = False, **flags: Any) -> Settings:
    """The settings in force; a flag that was not given is None. With ``files`` those of TLS are looked at too.

    Raises:
        SettingsWrong
    """
    names = Settings.model_fields
    values: dict[str, SettingValue] = {}
    faults: list[str] = []
    try:
        values, faults = from_file(names)
    except FileUnusable as error:
        faults = [str(error)]
    values |= from_environment(names) | from_flags(flags)
    try:
        settings = Settings(**{name: each.value for name, each in values.items()})
    except ValidationError as error:
        form = values["log_format"].value if "log_format" in values else ""
        raise SettingsWrong([*faults, *_faults(error, values)], "json" if form == "json" else "text") from None
    if (settings.tls_cert is None) != (settings.tls_key is None):
        there, lacking = ("tls_key", "tls_cert") if settings.tls_cert is None else ("tls_cert", "tls_key")
        faults.append(f"{there} ({values[there].source}): This needs {lacking} beside it. Set both, or neither.")
    elif files and settings.tls_cert is not None and settings.tls_key is not None:
        fault = kinds.tls_fault(settings.tls_cert, settings.tls_key)
        if fault is not None:
            faults.append(_line(fault[0], values[fault[0]], fault[1]))
    unset = [name for name in ("mail_from", "public_url") if not getattr(settings, name)]
    if settings.smtp_url and unset:
        source = values["smtp_url"].source
        faults.append(f"smtp_url ({source}): This needs {' and '.join(unset)} beside it. Set all three, or none.")
    if faults:
        raise SettingsWrong(faults, settings.log_format)
    return settings


def warnings() -> list[str]:
    """A sentence for each thing in the environment that looks like a setting and is none."""
    return list(unknown_variables(Settings.model_fields))


def _faults(error: ValidationError, values: dict[str, SettingValue]) -> Iterator[str]:
    """One line for each setting."""
    seen = set()
    for each in error.errors():
        name = str(each["loc"][0])
        if name in seen:
            continue
        seen.add(name)
        if each["type"] == "value_error":
            said = str(each["ctx"]["error"])
        else:
            said = f"{_seen(name, each['input'])} is not {_wanted(name)}."
        yield _line(name, values[name], said)


def _line(name: str, value: SettingValue, said: str) -> str:
    field = Settings.model_fields[name]
    example = _text((field.examples or [field.default])[0])
    return f"{name} ({value.source}): {said}" + (f" Write, for example: {value.written(example)}" if example else "")


def _seen(name: str, value: Any) -> str:
    """A text of no special kind may be a secret, and is not shown."""
    return "This" if Settings.model_fields[name].annotation is str else kinds.quoted(value)


def _wanted(name: str) -> str:
    """What the setting takes, in words."""
    field = Settings.model_fields[name]
    kind = field.annotation
    bounds = {key: getattr(each, key) for each in field.metadata for key in ("ge", "le") if hasattr(each, key)}
    if kind is int:
        least, most = bounds.get("ge"), bounds.get("le")
        return f"a whole number from {least} to {most}" if most is not None else f"a whole number, {least} or more"
    if get_origin(kind) is Literal:
        return " or ".join(str(each) for each in get_args(kind))
    if kind is bool:
        return "true or false"
    return "a path" if _is_path(kind) else "a text"


def _is_path(kind: Any) -> bool:
    return kind is Path or (get_origin(kind) in (Union, types.UnionType) and Path in get_args(kind))


def _text(value: Any) -> str:
    """A value as it may be written in the environment."""
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
