"""All settings: flags over HUBBUB_… environment variables over a TOML file over these defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HUBBUB_", frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(3000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data: Path = Field(Path("hubbub-data"), description="Folder of the embedded mode's database and secret.")
    user_rate: int = Field(2000, ge=1, description="Requests a second that one user may send.")
    queue_commands: int = Field(20_000, ge=1, description="Writes that may wait for the disk before 503.")
    tls_cert: Path | None = Field(None, description="PEM file of the certificate; serves HTTPS together with tls_key.")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key.")

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


def load(**flags: Any) -> Settings:
    """The settings in force; a flag that was not given is None.

    Raises:
        pydantic.ValidationError: a setting is wrong or unknown.
    """
    return Settings(**{name: value for name, value in flags.items() if value is not None})
