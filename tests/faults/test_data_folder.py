"""The data folder: missing, replaced or damaged files are reported, not ignored; no other user may read it."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from hubbub.embedded.data_folder import DataFolder
from tests.conftest import Person, Service, eventually, has_ended, serve


def remove(database: Path) -> None:
    database.unlink()


def empty(database: Path) -> None:
    database.write_bytes(b"")


def text(database: Path) -> None:
    database.write_text("This is no database.\n" * 500)


def another(database: Path) -> None:
    other = Service(database.parent.parent / "other")
    other.start()
    other.stop()
    shutil.copy(other.data / "hubbub.db", database)


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (remove, "is missing or empty"),
        (empty, "is missing or empty"),
        (text, "is no database"),
        (another, "is not the one of this folder"),
    ],
)
def test_a_start_without_the_folders_own_database_is_refused(
    own_service: Service, hurt: Callable[[Path], None], said: str
) -> None:
    assert own_service.stop() == 0
    hurt(own_service.data / "hubbub.db")
    before = sorted(file.name for file in own_service.data.iterdir())
    refused = serve(own_service.data)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "hubbub restore FILE --data NEW" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert sorted(file.name for file in own_service.data.iterdir()) == before, "nothing was made in its place"


def test_what_the_refusal_says_is_the_way_on(own_service: Service) -> None:
    own_service.stop()
    (own_service.data / "hubbub.db").unlink()
    refused = serve(own_service.data)
    assert f"remove {own_service.data / 'data-set'}" in refused.stderr
    (own_service.data / "data-set").unlink()
    own_service.start()
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        ann.post(f"{chat}/messages", json={"body": "a new beginning"})
        # The search index is that of the data that is gone.
        eventually(lambda: len(ann.get(f"{chat}/messages/search?q=beginning").json()) == 1)


def test_a_folder_of_the_version_before_is_taken_as_it_is(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat, cookies = ann.chat(), dict(ann.cookies)
    own_service.kill()  # what is in the log beside the database is not in the database yet
    (own_service.data / "data-set").unlink()
    connection = sqlite3.connect(own_service.data / "hubbub.db")
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    own_service.start()
    with httpx.Client(base_url=own_service.url + "/api/v1", cookies=cookies) as client:
        assert client.get(chat).status_code == 200
    own_service.kill()
    (own_service.data / "hubbub.db").unlink()
    assert "is missing or empty" in serve(own_service.data).stderr


def unready(service: Service) -> str:
    """What /readyz reports about the store; empty when all is well."""
    answer = httpx.get(service.url + "/readyz")
    part: str = answer.json()["parts"]["store"].get("detail", "")
    assert answer.status_code == (503 if part else 200)
    return part


def delete_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def delete_log(folder: Path) -> None:
    (folder / "hubbub.db-wal").unlink()


def replace_database(folder: Path) -> None:
    shutil.copy(folder / "hubbub.db", folder / "copy")
    (folder / "copy").rename(folder / "hubbub.db")


@pytest.mark.parametrize("hurt", [delete_folder, delete_log, replace_database])
def test_nothing_is_acknowledged_once_the_database_is_gone(own_service: Service, hurt: Callable[[Path], None]) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        assert ann.post(f"{chat}/messages", json={"body": "before"}).status_code == 200
        hurt(own_service.data)
        answers = [ann.post(f"{chat}/messages", json={"body": "after"}) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [503] * 20
        assert "deleted, moved or replaced" in answers[0].json()["error"]
        assert int(answers[0].headers["retry-after"]) > 0
        assert "deleted, moved or replaced" in unready(own_service)
        assert httpx.get(own_service.url + "/metrics").status_code == 200
    assert own_service.log.count("No more writes are accepted") == 1


def test_an_idle_service_notices_too(own_service: Service) -> None:
    assert unready(own_service) == ""
    shutil.rmtree(own_service.data)
    eventually(lambda: "deleted, moved or replaced" in unready(own_service))


def test_a_damaged_database_is_said_by_readyz_and_takes_no_more(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        for _ in range(20):
            ann.post(f"{chat}/messages", json={"body": "x" * 9000})
        cookies = dict(ann.cookies)
    own_service.stop()
    database = own_service.data / "hubbub.db"
    connection = sqlite3.connect(database)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'messages'").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    own_service.start()
    with httpx.Client(base_url=own_service.url + "/api/v1", cookies=cookies) as client:
        assert client.get(f"{chat}/messages").status_code == 503
        assert client.post(f"{chat}/messages", json={"body": "x"}).status_code == 503
        assert client.post("/applications", json={"name": "Ours"}).status_code == 503
    assert "is damaged" in unready(own_service)
    assert own_service.log.count("No more writes are accepted") == 1
    assert "Traceback" not in own_service.log


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


def test_all_in_the_folder_is_its_owners_alone(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        ann.post(f"{ann.chat()}/messages", json={"body": "x"})
    eventually(lambda: any(name.startswith("search-") for name in modes(own_service.data)))
    assert {"hubbub.db", "hubbub.db-wal", "hubbub.db-shm", "secret", "data-set"} <= set(modes(own_service.data))
    assert set(modes(own_service.data).values()) == {0o600}
    own_service.kill()
    for file in own_service.data.iterdir():
        file.chmod(0o644)
    own_service.data.chmod(0o777)
    own_service.start()
    assert set(modes(own_service.data).values()) == {0o600}
    assert own_service.data.stat().st_mode & 0o777 == 0o777
    assert f"chmod go-w {own_service.data}" in own_service.log


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00" * 40, b"short"])
def test_a_damaged_secret_is_one_line(own_service: Service, content: bytes) -> None:
    own_service.stop()
    (own_service.data / "secret").write_bytes(content)
    refused = serve(own_service.data)
    assert refused.returncode == 1
    assert "must hold 64 hexadecimal digits" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_start_waits_for_the_parts_of_a_killed_service_that_nobody_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is still in the system's table then, so its id seems to be in use."""
    ended = subprocess.Popen(["true"])
    eventually(lambda: has_ended(psutil.Process(ended.pid)))
    held = (tmp_path / "lock").open("w")
    held.write(f"{ended.pid}\n")
    held.flush()
    fcntl.flock(held, fcntl.LOCK_EX)
    monkeypatch.setattr("hubbub.embedded.data_folder.time.sleep", lambda _: held.close())  # the last part ends
    DataFolder.open(tmp_path).close()
    assert held.closed
    ended.wait()


def test_damage_that_every_process_finds_is_logged_once(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        assert ann.post(f"{chat}/messages", json={"body": "hello"}).status_code == 200
        database = own_service.data / "hubbub.db"
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with database.open("r+b") as file:
            for at in range(4096, database.stat().st_size, 4096):
                file.seek(at)
                file.write(b"\xff" * 4096)
        assert ann.post(f"{chat}/messages", json={"body": "hello"}).status_code == 503
        assert ann.get(f"{chat}/messages?before=9").status_code == 503
    ready = own_service.url + "/readyz"
    eventually(lambda: all(part["status"] == "failing" for part in httpx.get(ready).json()["parts"].values()))
    own_service.stop()
    assert own_service.log.count("is damaged: database disk image is malformed. No more writes are accepted.") == 1
