"""The documentation matches the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hubbub.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    rows = (ROOT / "docs" / "settings.md").read_text().splitlines()
    row = next((row for row in rows if row.startswith(f"| `{name}` |")), None)
    assert row is not None, f"docs/settings.md does not have {name}"
    default = "none" if field.default in ("", (), None) else str(field.default)
    default = default.lower() if isinstance(field.default, bool) else default
    assert row == f"| `{name}` | {default} | {field.description} |"


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    code = "".join(file.read_text() for file in (ROOT / "src" / "hubbub").rglob("*.py") if "loadtest" not in file.parts)
    named = set(re.findall(r'"(hubbub_\w+)"', code))
    assert len(named) > 10
    assert {name for name in named if not {name, f"{name}_total"} & documented} == set()


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    assert "fonts.googleapis.com" not in (tmp_path / "site" / "index.html").read_text()
