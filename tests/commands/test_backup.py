"""``hubbub backup`` while the service writes, and ``hubbub restore``. The backup has all that was acknowledged."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import httpx

from tests.conftest import Person, Service, eventually, serve


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

            def found() -> list[str]:
                answer = client.get(f"{chat}/messages/search?q=message+17")
                assert answer.status_code in (200, 503)  # the index is being opened
                return [each["body"] for each in answer.json()] if answer.status_code == 200 else []

            eventually(lambda: "message 17" in found())
    finally:
        restored.stop()


def test_a_restored_folder_is_a_new_data_set_from_its_first_start_on(own_service: Service, tmp_path: Path) -> None:
    with closing(Person(own_service.url)) as ann:
        chat, cookies = ann.chat(), dict(ann.cookies)
    assert hubbub("backup", tmp_path / "backup.tar", "--data", own_service.data).returncode == 0
    assert hubbub("restore", tmp_path / "backup.tar", "--data", tmp_path / "again").returncode == 0
    restored = Service(tmp_path / "again")
    for _ in range(2):
        restored.start()
        with httpx.Client(base_url=restored.url + "/api/v1", cookies=cookies) as client:
            assert client.get(chat).status_code == 200
        assert restored.stop() == 0
    assert {file.stat().st_mode & 0o777 for file in restored.data.iterdir()} == {0o600}
    (restored.data / "hubbub.db").unlink()
    assert "is missing or empty" in serve(restored.data).stderr


def test_the_next_backup_removes_what_a_killed_one_left(own_service: Service, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    # One backup is killed while it waits for the disk, and the other still works.
    code = """
import os, sys, pathlib
from hubbub.embedded import backup
def wait(database, copy):
    copy.write_bytes(b"x" * 1000)
    print("copying", flush=True)
    sys.stdin.readline()
    raise OSError("enough")
backup._copy = wait
backup.back_up(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(own_service.data), str(backups / f"{name}.tar")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for name in ("killed", "working")
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == b"copying\n"
    killed, working = both
    killed.kill()
    killed.communicate()
    assert hubbub("backup", backups / "one.tar", "--data", own_service.data).returncode == 0
    assert len(list(backups.iterdir())) == 3, "nothing is taken from one that is still at work"
    working.communicate(b"\n")
    assert hubbub("backup", backups / "two.tar", "--data", own_service.data).returncode == 0
    assert sorted(file.name for file in backups.iterdir()) == ["one.tar", "two.tar"]


def test_existing_files_are_not_overwritten(own_service: Service, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    assert hubbub("backup", file, "--data", own_service.data).returncode == 0
    twice = hubbub("backup", file, "--data", own_service.data)
    assert twice.returncode == 1
    assert "is there already" in twice.stderr
    into = hubbub("restore", file, "--data", own_service.data)
    assert into.returncode == 1
    assert "is not empty" in into.stderr


def test_a_file_that_is_not_a_backup_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    refused = hubbub("restore", tmp_path / "file", "--data", tmp_path / "new")
    assert refused.returncode == 1
    assert "is no backup of Hubbub" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file"}
    nowhere = hubbub("backup", tmp_path / "b.tar", "--data", tmp_path / "nowhere")
    assert nowhere.returncode == 1
    assert "is no data folder" in nowhere.stderr
