"""When a disk fills up, writes are refused, nothing acknowledged is lost, and the service recovers by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Person, Service, serve


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


@pytest.fixture
def own_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in a file, which a test can break like a real disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 * 1024 * 1024)
    for command in (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]):
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            pytest.skip(f"needs mkfs.ext4 and the right to mount a loop device: {error}")
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


def test_a_disk_that_turns_read_only_refuses_writes_and_loses_none(own_disk: Path) -> None:
    service = Service(own_disk / "data", log=own_disk.parent / "service.log")
    service.start()
    try:
        with closing(Person(service.url)) as ann:
            chat = ann.chat()
            ann.post(f"{chat}/messages", json={"body": "before"})
            # After an I/O error, the kernel makes it read-only too, under files that are open for writing.
            subprocess.run(["mount", "-o", "remount,abort", str(own_disk)], check=True)
            refused = [ann.post(f"{chat}/messages", json={"body": "during"}) for _ in range(3)]
            assert [answer.status_code for answer in refused] == [503, 503, 503]
            assert httpx.get(service.url + "/readyz").status_code == 503
            assert [message["body"] for message in ann.get(f"{chat}/messages").json()] == ["before"]
            service.kill()
            assert service.log.count("Writes are refused") == 1
            assert "Traceback" not in service.log
            subprocess.run(["umount", str(own_disk)], check=True)
            subprocess.run(["mount", "-o", "loop", str(own_disk.parent / "disk.img"), str(own_disk)], check=True)
            service.start()
            ann.base_url = httpx.URL(service.url + "/api/v1")
            assert [message["body"] for message in ann.get(f"{chat}/messages").json()] == ["before"]
    finally:
        service.kill()


def test_a_read_only_folder_is_named_at_the_start(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = serve(small_disk / "data")
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    assert "--data" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_room_for_the_schema_is_named_at_the_start(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=60k", str(small_disk)], check=True)
    words = [sys.executable, "-m", "hubbub", "serve", "--port", "0", "--data", str(small_disk / "data")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"hubbub: the database in {small_disk}/data can't be opened: database or disk is full.\n"
