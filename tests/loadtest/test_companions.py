"""The files that go with the load tester work with the tools that they are for."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.conftest import Service

ROOT = Path(__file__).parents[2]


def deleted(service: Service) -> dict[str, int]:
    """Return how many deletions the service has done, by route."""
    text = httpx.get(f"{service.url}/metrics").text
    form = r'hubbub_http_request_duration_seconds_count\{route="(delete\w+)",status="204"\} (\d+)'
    return {name: int(count) for name, count in re.findall(form, text)}


def test_locust_runs_its_file_without_a_failure(embedded: Service, tmp_path: Path) -> None:
    before = deleted(embedded)
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", str(ROOT / "deploy/locustfile.py"), "--host", embedded.url,
         "--headless", "-u", "3", "-r", "3", "-t", "5s", "--only-summary", "--csv", str(tmp_path / "seen")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    after = deleted(embedded)
    rows = {row["Name"]: row for row in csv.DictReader((tmp_path / "seen_stats.csv").open())}
    for name in ("send", "chats", "messages"):
        assert int(rows[name]["Request Count"]) > 0
        assert int(rows[name]["Failure Count"]) == 0
    assert [after[name] - before.get(name, 0) for name in ("deleteApplication", "deleteMe")] == [3, 3]


def test_the_workflow_is_valid_and_uses_options_that_exist() -> None:
    workflow = ROOT / ".github/workflows/performance.yml"
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    known = subprocess.run(
        [sys.executable, "-m", "hubbub", "perftest", "--help"], capture_output=True, text=True, check=True
    ).stdout
    used = {word for word in workflow.read_text().split() if word.startswith("--")}
    assert used
    assert all(word in known for word in used)


def test_the_plotting_library_is_the_documented_version() -> None:
    folder = ROOT / "src/hubbub/loadtest/page/uplot"
    script = (folder / "uPlot.iife.min.js").read_bytes()
    assert b"(v1.6.32)" in script[:100]
    assert "uPlot 1.6.32" in (folder / "ORIGIN.md").read_text()
    assert hashlib.sha256(script).hexdigest() == "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
