"""Who becomes an operator, and who may create an account."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from hubbub.cli import main
from hubbub.embedded.data_folder import DataFolder
from hubbub.embedded.store import SqliteStore
from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import OPERATOR, Person, Service
from tests.http.test_accounts import GOOD, problem

ACCOUNT = {"name": "Ann", "email": "ann@example.com", "password": "correct horse"}


def operators(*arguments: str, status: int = 0, settings: dict[str, str] | None = None) -> str:
    """Run ``hubbub operators`` and return its output."""
    done = CliRunner().invoke(main, ["operators", *arguments], env=settings)
    assert done.exit_code == status, done.output
    return done.output


def is_operator(client: httpx.Client) -> bool:
    operator = bool(client.get("/auth/me").json()["user"].get("operator", False))
    assert client.get("/operator").status_code == (200 if operator else 403)
    return operator


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    service.start(
        HUBBUB_REGISTRATION="closed",
        HUBBUB_PUBLIC_URL="https://chat.example.com",
        HUBBUB_HOST="0.0.0.0",  # noqa: S104
    )
    yield service
    service.kill()


def test_the_first_account_has_no_special_rights(own_service: Service) -> None:
    with closing(Person(own_service.url)) as first:
        assert not is_operator(first)
        with closing(own_service.make_operator()) as operator:
            assert is_operator(operator)
        assert not is_operator(first)


def test_the_set_up_link_works_once_also_where_registration_is_closed(closed: Service) -> None:
    assert "passwords are sent unencrypted: set tls_cert" in closed.log
    link = closed.setup_link()
    assert link.startswith("https://chat.example.com/setup#")
    api, account = closed.url + "/api/v1", {"code": link.partition("#")[2], **ACCOUNT}
    assert "closed" in str(problem(httpx.post(f"{api}/auth/register", json=ACCOUNT), 403)["error"])
    problem(httpx.post(f"{api}/auth/register", json={**ACCOUNT, "invite": account["code"]}), 403)
    problem(httpx.post(f"{api}/auth/setup", json={**account, "code": "A" * 22}), 404)
    problem(httpx.post(f"{api}/auth/setup", json={**account, "email": "nobody"}), 422)
    with httpx.Client(base_url=api) as ann:
        assert ann.post("/auth/setup", json=account).status_code == 201
        assert is_operator(ann)
    problem(httpx.post(f"{api}/auth/setup", json={**account, "email": "late@example.com"}), 404)
    assert account["code"] not in closed.log


def test_a_new_link_is_printed_at_each_start_until_there_is_an_operator(own_service: Service) -> None:
    first = own_service.setup_link().partition("#")[2]
    own_service.kill()
    own_service.start()
    problem(httpx.post(own_service.url + "/api/v1/auth/setup", json={"code": first, **ACCOUNT}), 404)
    own_service.make_operator().close()
    assert own_service.stop() == 0
    own_service.start()
    own_service.process.terminate()
    assert own_service.process.stdout is not None
    assert own_service.process.stdout.read() == ""


def test_once_the_only_operator_is_deleted_a_new_link_is_printed(own_service: Service) -> None:
    with closing(own_service.make_operator()) as operator:
        gone = operator.request("DELETE", "/auth/me", json={"currentPassword": "correct horse"})
        assert gone.status_code == 204
    assert operators("list", "--data", str(own_service.data)) == ""
    assert own_service.stop() == 0
    own_service.start()
    with closing(own_service.make_operator()) as operator:
        assert is_operator(operator)


def test_operators_are_added_and_removed_while_it_serves(own_service: Service) -> None:
    data = ("--data", str(own_service.data))
    with closing(Person(own_service.url)) as ann, httpx.Client(base_url=own_service.url + "/api/v1") as bob:
        assert operators("list", *data) == ""
        assert not is_operator(ann)
        assert operators("add", ann.email.upper(), *data) == f"{ann.email} ({ann.name}) is an operator.\n"
        assert is_operator(ann), "at once"
        assert operators("list", *data) == f"{ann.email}  {ann.name}\n"
        link = re.search(r"http://127.0.0.1:3000/setup#(\S+)", operators("add", "bob@example.com", *data))
        assert link
        account = {**ACCOUNT, "code": link[1]}
        problem(bob.post("/auth/setup", json={**account, "email": "eve@example.com"}), 404)
        assert bob.post("/auth/setup", json={**account, "email": "Bob@example.com"}).status_code == 201
        assert is_operator(bob)
        operators("remove", ann.email, *data)
        assert (is_operator(ann), is_operator(bob)) == (False, True)
        assert "no account" in operators("remove", "eve@example.com", *data, status=1)
        assert "no data folder" in operators("list", "--data", str(own_service.data / "no"), status=1)


def test_operators_of_a_moved_folder_are_changed_in_the_cluster_only(tmp_path: Path) -> None:
    """A change to the folder would be lost, so it is refused."""
    folder = DataFolder.open(tmp_path)
    SqliteStore(folder.database).close()
    folder.mark_moved("mysql://there")
    folder.close()
    for command in ("add", "remove"):
        refused = operators(command, "ann@example.com", "--data", str(tmp_path), status=1)
        assert "was moved to the cluster at mysql://there" in refused


def test_an_operators_email_cannot_be_registered(own_service: Service) -> None:
    """Registering does not prove that the email is the user's."""
    data, setting = ("--data", str(own_service.data)), {"HUBBUB_OPERATORS": f'["{OPERATOR}"]'}
    own_service.stop()
    own_service.start(**setting)
    named = {**GOOD, "email": OPERATOR.upper()}
    refused = problem(httpx.post(own_service.url + "/api/v1/auth/register", json=named), 403)
    assert "hubbub operators add" in str(refused["error"])
    with closing(own_service.make_operator()) as operator:
        assert is_operator(operator)
    assert "named in the setting" in operators("list", *data, settings=setting)
    assert "stays" in operators("remove", OPERATOR, *data, settings=setting, status=1)


def test_operators_of_a_cluster(cluster: ClusterStack) -> None:
    with closing(Person(cluster.apis[0].url)) as ann, httpx.Client(base_url=cluster.apis[1].url + "/api/v1") as bob:
        operators("add", ann.email, settings=cluster.settings)
        assert is_operator(ann)
        link = re.search(r"#(\S+)", operators("add", f"b.{ann.email}", settings=cluster.settings))
        assert link
        assert bob.post("/auth/setup", json={**ACCOUNT, "email": f"b.{ann.email}", "code": link[1]}).status_code == 201
        assert is_operator(bob)
        assert ann.email in operators("list", settings=cluster.settings)
        operators("remove", ann.email, settings=cluster.settings)
        operators("remove", f"b.{ann.email}", settings=cluster.settings)
        assert not is_operator(ann)
        assert not is_operator(bob)
