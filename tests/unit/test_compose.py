"""The compose file matches what it starts, as far as that can be checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubbub.cli import main
from hubbub.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_part_is_pinned_watched_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"(?:[a-z]+/)?[a-z]+:v?\d+\.\d+[\w.-]*", service["image"]), (
        "an image without a version changes by itself"
    )
    assert service["healthcheck"]["test"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["restart"] == "always"


def test_our_parts_are_commands_with_settings_that_exist() -> None:
    ours = {name: service for name, service in SERVICES.items() if service["image"].startswith("hubbub:")}
    assert set(ours) == {"api", "writer"}
    for service in ours.values():
        program, command, *arguments = service["command"]
        assert program == "hubbub"
        options = {option for parameter in main.commands[command].params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options
        known = {f"HUBBUB_{name.upper()}" for name in Settings.model_fields}
        assert set(service["environment"]) <= known


def test_no_password_is_written_down() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASS" in name and name != "MARIADB_RANDOM_ROOT_PASSWORD":
                assert value.startswith("${"), name
            assert not re.search(r"://[^:]*:[^$@]+@", str(value)), name


def test_data_outlives_its_container() -> None:
    volumes = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= volumes
