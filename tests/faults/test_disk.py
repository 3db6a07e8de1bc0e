"""A disk that fills up: writes are refused, nothing acknowledged is lost, and the service mends by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Person, Service


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_writes_and_loses_none(small_disk: Path) -> None:
    service = Service(small_disk / "data", log=small_disk.parent / "service.log")
    service.start()
    try:
        with closing(Person(service.url)) as ann:
            chat = ann.chat()
            acknowledged = []
            for _ in range(500):
                answer = ann.post(f"{chat}/messages", json={"body": "x" * 9000})
                if answer.status_code != 200:
                    break
                acknowledged.append(answer.json()["messageNumber"])
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert "full" in answer.json()["error"]
            assert httpx.get(service.url + "/readyz").status_code == 503
            assert ann.get(f"{chat}/messages").is_success
            subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
            acknowledged.append(ann.post(f"{chat}/messages", json={"body": "after"}).json()["messageNumber"])
            assert httpx.get(service.url + "/readyz").status_code == 200
            service.kill()
            service.start()
            ann.base_url = httpx.URL(service.url + "/api/v1")
            assert all(ann.get(f"{chat}/messages/{number}").is_success for number in acknowledged)
            assert ann.get(chat).json()["messagesCount"] == len(acknowledged)
        assert service.log.count("Writes are refused") == 1
    finally:
        service.kill()
