"""``hubbub backup`` while the service writes, and ``hubbub restore``: all that was acknowledged before is there."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import httpx

from tests.conftest import Person, Service, eventually


def hubbub(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hubbub", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_backup_under_load_has_all_that_was_acknowledged_before(own_service: Service, tmp_path: Path) -> None:
    with closing(Person(own_service.url)) as ann:
        chat, cookies = ann.chat(), dict(ann.cookies)
    acknowledged: list[int] = []
    stop = threading.Event()

    def write() -> None:
        with httpx.Client(base_url=own_service.url + "/api/v1", cookies=cookies) as client:
            while not stop.is_set():
                answer = client.post(f"{chat}/messages", json={"body": f"message {len(acknowledged)}"})
                acknowledged.append(answer.json()["messageNumber"])

    thread = threading.Thread(target=write)
    thread.start()
    eventually(lambda: len(acknowledged) > 200)
    before = len(acknowledged)
    made = hubbub("backup", tmp_path / "backup.tar", "--data", own_service.data)
    assert made.returncode == 0, made.stderr
    during = len(acknowledged)
    eventually(lambda: len(acknowledged) > during)
    stop.set()
    thread.join()
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600

    again = hubbub("restore", tmp_path / "backup.tar", "--data", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    restored = Service(tmp_path / "again")
    restored.start()
    try:
        with httpx.Client(base_url=restored.url + "/api/v1", cookies=cookies) as client:
            count = client.get(chat).json()["messagesCount"]
            assert before <= count
            newest = client.get(f"{chat}/messages").json()[0]
            assert newest["messageNumber"] == count
            assert client.post(f"{chat}/messages", json={"body": "after"}).json() == {"messageNumber": count + 1}
            found = lambda: client.get(f"{chat}/messages/search?q=message+17").json()  # noqa: E731
            eventually(lambda: any(each["body"] == "message 17" for each in found()))
    finally:
        restored.stop()


def test_what_would_be_overwritten_is_not(own_service: Service, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    assert hubbub("backup", file, "--data", own_service.data).returncode == 0
    twice = hubbub("backup", file, "--data", own_service.data)
    assert twice.returncode == 1
    assert "is there already" in twice.stderr
    into = hubbub("restore", file, "--data", own_service.data)
    assert into.returncode == 1
    assert "is not empty" in into.stderr


def test_what_is_no_backup_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    refused = hubbub("restore", tmp_path / "file", "--data", tmp_path / "new")
    assert refused.returncode == 1
    assert "is no backup of Hubbub" in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"file"}
    nowhere = hubbub("backup", tmp_path / "b.tar", "--data", tmp_path / "nowhere")
    assert nowhere.returncode == 1
    assert "is no data folder" in nowhere.stderr
