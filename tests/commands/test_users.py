"""``hubbub users``, while the service runs and while it is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from hubbub.chat.model import ChatKey
from hubbub.embedded.index_chats import Part
from hubbub.embedded.store import SqliteStore
from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Service

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


def hubbub(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hubbub", "users", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def users(request: pytest.FixtureRequest, service: Service | ClusterStack) -> Run:
    """The command, run on the data of the running service of each mode."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        if isinstance(service, Service):
            return hubbub({}, *arguments, "--data", str(service.data))
        return hubbub(service.settings, *arguments)

    return run


@pytest.fixture
def carol(service: Service | ClusterStack) -> Iterator[Person]:
    with closing(Person(service.url)) as person:
        yield person


def login(url: str, email: str, password: str) -> int:
    return httpx.post(f"{url}/api/v1/auth/login", json={"email": email, "password": password}).status_code


def test_a_lost_password_is_replaced_and_all_sessions_end(
    service: Service | ClusterStack, users: Run, carol: Person
) -> None:
    chat = carol.chat()
    assert carol.get(f"{chat}/messages").status_code == 200
    done = users("reset-password", carol.email.upper())
    assert done.returncode == 0, done.stderr
    password = done.stdout.strip()
    assert len(password) >= 16
    assert carol.get(f"{chat}/messages").status_code == 401
    assert login(service.url, carol.email, "correct horse") == 401
    assert login(service.url, carol.email, password) == 200


def test_an_account_is_deleted_unless_it_owns_something(
    service: Service | ClusterStack, users: Run, carol: Person
) -> None:
    token = carol.application()
    refused = users("delete", carol.email)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "hand over or delete the application that you own first" in refused.stderr
    assert carol.delete(f"/applications/{token}").status_code == 204
    done = users("delete", carol.email)
    assert done.returncode == 0, done.stderr
    assert carol.get("/auth/me").status_code == 401
    assert login(service.url, carol.email, "correct horse") == 401


def test_a_stopped_services_accounts_are_changed_too(own_service: Service) -> None:
    with closing(Person(own_service.url)) as dave, closing(Person(own_service.url)) as erin:
        chat = dave.chat()
        members = chat.rsplit("/", 2)[0] + "/members"
        assert dave.post(members, json={"email": erin.email, "role": "member"}).is_success
        assert erin.post(f"{chat}/messages", json={"body": "goes"}).is_success
        assert own_service.stop() == 0
        data = "--data", str(own_service.data)
        password = hubbub({}, "reset-password", dave.email, *data).stdout.strip()
        assert hubbub({}, "delete", erin.email, "--messages", "erase", *data).returncode == 0
        again = hubbub({}, "delete", erin.email, *data)
        assert (again.returncode, again.stderr) == (1, f"hubbub: There is no account with the email {erin.email}.\n")
        own_service.start()
        assert login(own_service.url, dave.email, password) == 200
        assert login(own_service.url, erin.email, "correct horse") == 401


def test_a_folder_without_data_is_reported(tmp_path: Path) -> None:
    done = hubbub({}, "reset-password", "a@example.com", "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no data folder of Hubbub" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_a_chat_deleted_before_a_restart_is_erased_after_it(own_service: Service) -> None:
    with closing(Person(own_service.url)) as dave:
        chat = dave.chat()
        for number in range(20):
            assert dave.post(f"{chat}/messages", json={"body": f"{number}"}).is_success
        assert dave.delete(chat).status_code == 204
    own_service.kill()
    own_service.start()
    assert own_service.stop() == 0  # stopping does the work that can wait once more
    store = SqliteStore(own_service.data / "hubbub.db")
    left, _ = store.following.of_chats([Part(1, ChatKey("", 1))], 1000)  # the only chat's id
    store.close()
    assert left == []
