"""All settings: flags over HUBBUB_… environment variables over a TOML file over these defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from hubbub.chat.quotas import Hourly
from hubbub.logs import without_passwords


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HUBBUB_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(3000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data: Path = Field(Path("hubbub-data"), description="Folder of the embedded mode's database and secret.")
    user_rate: int = Field(2000, ge=1, description="Requests a second that one user may send.")
    user_applications_per_hour: int = Field(
        100, ge=1, le=3_600_000, description="Applications that one user may make in an hour."
    )
    user_chats_per_hour: int = Field(3000, ge=1, le=3_600_000, description="Chats that one user may make in an hour.")
    user_members_per_hour: int = Field(
        1000,
        ge=1,
        le=3_600_000,
        description="Members that one user may add in an hour; a try to add nobody counts too.",
    )
    user_invites_per_hour: int = Field(100, ge=1, description="Invites that one user may make in an hour.")
    user_streams: int = Field(100, ge=1, description="Streams that one user may have open at a process.")
    queue_commands: int = Field(20_000, ge=1, description="Writes that may wait for the disk before 503.")
    mysql_url: str = Field("", description="Cluster: mysql://USER:PASSWORD@HOST:PORT/DATABASE.")
    amqp_url: str = Field("", description="Cluster: amqp://USER:PASSWORD@HOST:PORT/ of RabbitMQ.")
    redis_url: str = Field(
        "",
        description="Cluster: redis://:PASSWORD@HOST:PORT/0 (rediss: with TLS); several, with commas, share the load.",
    )
    search_url: str = Field("", description="Cluster: http://USER:PASSWORD@HOST:9200, OpenSearch's or Elasticsearch's.")
    mysql_replicas: tuple[str, ...] = Field((), description="Cluster: URLs of read-only copies, as a JSON list.")
    shards: int = Field(4, ge=1, le=256, description="Cluster: queues that writes are split over; kept at first start.")
    mysql_pool: int = Field(8, ge=2, le=200, description="Cluster: database connections of each process.")
    proxies: tuple[str, ...] = Field(
        (), description="Addresses or networks whose X-Forwarded-For and -Proto are believed, as a JSON list."
    )
    address_connections: int = Field(
        1000, ge=1, description="Connections that one address may have open (IPv6: a /64). Not of proxies or loopback."
    )
    operators: tuple[str, ...] = Field(
        (), description="Emails of operators, as a JSON list, beside those that `hubbub operators` names."
    )
    registration: Literal["open", "invited", "closed"] = Field(
        "open", description="Who may make an account: anybody (open), who has an invite (invited), nobody (closed)."
    )
    smtp_url: str = Field(
        "", description="Mail server, smtp://USER:PASSWORD@HOST:587 (or smtps:, port 465); nothing is mailed without."
    )
    mail_from: str = Field("", description="Sender of what is mailed, chat@example.com; needed with smtp_url.")
    public_url: str = Field(
        "", description="Address by which people reach this service, https://chat.example.com; links begin with it."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people (text) or programs (json).")
    trace_url: str = Field("", description="OTLP/HTTP collector, http://HOST:4318/v1/traces; traces are off without.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Cluster: port of a writer's /metrics; 0 has none. (An API process has its own.)"
    )
    tls_cert: Path | None = Field(None, description="PEM file of the certificate; serves HTTPS together with tls_key.")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key.")

    @field_validator("smtp_url")
    @classmethod
    def _mail_server(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.port == 0):
            raise ValueError("must be smtp://USER:PASSWORD@HOST:PORT, or smtps: with TLS from the start")
        return value

    @field_validator("public_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be http://HOST or https://HOST, as people type it into a browser")
        return value

    @field_validator("mail_from", "public_url")
    @classmethod
    def _needed_for_mail(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("smtp_url") and not value:
            raise ValueError("is needed where smtp_url is set")
        return value

    @property
    def hourly(self) -> Hourly:
        return Hourly(
            self.user_applications_per_hour,
            self.user_chats_per_hour,
            self.user_members_per_hour,
            self.user_invites_per_hour,
        )

    @property
    def redis_urls(self) -> list[str]:
        """Of each Redis server, in the order that every process must have."""
        return [url.strip() for url in self.redis_url.split(",") if url.strip()]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = Path(os.environ.get("HUBBUB_CONFIG", "hubbub.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)


def shown(settings: Settings) -> dict[str, str]:
    """Every setting in force, passwords hidden."""
    return {name: without_passwords(str(value)) for name, value in settings}


def load(**flags: Any) -> Settings:
    """The settings in force; a flag that was not given is None.

    Raises:
        pydantic.ValidationError: a setting is wrong or unknown.
    """
    return Settings(**{name: value for name, value in flags.items() if value is not None})
