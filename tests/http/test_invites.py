"""Invites over HTTP: who may create them, who joins, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from hubbub.chat import logins
from hubbub.chat.limits import WRONG_CODES_OF_ADDRESS
from tests.conftest import Person, Served, Service
from tests.http.test_accounts import GOOD, problem
from tests.http.test_quotas import must_be_refused
from tests.mailbox import Mailbox
from tests.worst import served


def invite(person: Person, token: str, **more: Any) -> dict[str, Any]:
    answer = person.post(f"/applications/{token}/invites", json={"role": "member", **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def accept(client: httpx.Client, made: dict[str, Any]) -> httpx.Response:
    return client.post("/invites/accept", json={"code": made["code"]})


def members(person: Person, token: str) -> dict[str, str]:
    return {each["email"]: each["role"] for each in person.get(f"/applications/{token}/members").json()}


def test_an_invite_joins_and_never_lowers_a_role(ann: Person, bob: Person) -> None:
    token = ann.application()
    made = invite(ann, token, expiresIn=3600)
    assert set(made) == {"id", "link", "code", "role", "uses", "expiresAt"}
    assert made["link"] == f"{Mailbox.url}/invite#{made['code']}"
    left = datetime.fromisoformat(made["expiresAt"]).timestamp() - datetime.now().timestamp()
    assert 3500 < left <= 3600
    assert bob.get(f"/applications/{token}").status_code == 404
    assert accept(bob, made).json() == {"token": token, "role": "member"}
    assert bob.get(f"/applications/{token}").is_success
    assert accept(bob, made).json() == {"token": token, "role": "member"}, "a retry gets the same answer"
    admin = invite(ann, token, role="admin")
    assert accept(bob, admin).json() == {"token": token, "role": "admin"}
    assert bob.patch(f"/applications/{token}", json={"name": "Bob's too"}).is_success, "and at once"
    assert accept(bob, invite(ann, token)).json() == {"token": token, "role": "admin"}
    assert accept(ann, admin).json() == {"token": token, "role": "owner"}
    assert members(ann, token) == {ann.email: "owner", bob.email: "admin"}


def test_a_wrong_used_up_or_revoked_code_is_the_same_404(ann: Person, bob: Person, stranger: Person) -> None:
    token = ann.application()
    used, revoked = invite(ann, token), invite(ann, token)
    assert accept(bob, used).is_success
    assert ann.delete(f"/applications/{token}/invites/{revoked['id']}").status_code == 204
    for ref in (revoked["id"], "%C2%92", "%F0%9F%8E%89", "%FF", "x" * 999):
        problem(ann.delete(f"/applications/{token}/invites/{ref}"), 404)
    answers = [accept(stranger, {"code": code}) for code in (used["code"], revoked["code"], "A" * 22)]
    assert len({answer.content for answer in answers}) == 1
    problem(answers[0], 404)
    assert members(ann, token) == {ann.email: "owner", bob.email: "member"}


def test_no_path_has_a_code_in_it(service: Served) -> None:
    """Proxies log paths, so a code in one would leak."""
    document = httpx.get(f"{service.url}/openapi.json").json()
    assert "/api/v1/invites/accept" in document["paths"]
    assert [path for path in document["paths"] if "code" in path] == []


def test_an_invite_of_a_deleted_application_is_the_same_404(ann: Person, bob: Person, nobody: httpx.Client) -> None:
    token = ann.application()
    made = invite(ann, token, uses=2)
    assert ann.delete(f"/applications/{token}").status_code == 204
    problem(accept(bob, made), 404)
    assert accept(bob, made).content == accept(bob, {"code": "A" * 22}).content
    signing_up = {**GOOD, "email": f"new.{bob.email}", "invite": made["code"]}
    problem(nobody.post("/auth/register", json=signing_up), 403)
    problem(nobody.post("/auth/login", json={key: signing_up[key] for key in ("email", "password")}), 401)
    for path in (f"/applications/{token}/invites", f"/applications/{token}/invites/{made['id']}"):
        problem(ann.request("GET" if path.endswith("invites") else "DELETE", path), 404)


def test_invites_are_listed_without_their_codes(ann: Person, bob: Person) -> None:
    token = ann.application()
    made = [invite(ann, token, uses=number) for number in (1, 2, 3)]
    accept(bob, made[2])
    path = f"/applications/{token}/invites"
    listed = [each for page in (1, 2) for each in ann.get(f"{path}?page={page}&limit=2").json()]
    assert [(each["id"], each["uses"], each["used"]) for each in listed] == [
        (each["id"], each["uses"], used) for each, used in zip(made[::-1], (1, 0, 0), strict=True)
    ]
    assert set(listed[0]) == {"id", "role", "uses", "used", "createdAt", "expiresAt"}
    assert not any(each["code"] in ann.get(path).text for each in made)


@pytest.mark.parametrize(
    "change",
    [{"role": "owner"}, {"role": None}, {"uses": 0}, {"uses": 1001}, {"expiresIn": 59}, {"expiresIn": 30 * 86400 + 1}],
)
def test_a_wrong_field_is_named(ann: Person, change: dict[str, Any]) -> None:
    answer = ann.post(f"/applications/{ann.application()}/invites", json={"role": "member", **change})
    errors = problem(answer, 422)["errors"]
    assert isinstance(errors, list)
    assert [error.split()[0] for error in errors] == list(change)


def test_concurrent_joins_are_no_more_than_an_invite_has_uses(service: Served) -> None:
    urls = [each.url for each in getattr(service, "apis", [service])]
    with ExitStack() as stack:
        ann = stack.enter_context(closing(Person(urls[0])))
        people = [stack.enter_context(closing(Person(urls[number % len(urls)]))) for number in range(8)]
        made = invite(ann, ann.application(), uses=5)
        with ThreadPoolExecutor(len(people)) as threads:
            statuses = list(threads.map(lambda person: accept(person, made).status_code, people))
        assert sorted(statuses) == [200] * 5 + [404] * 3
        path = f"/applications/{ann.get('/applications').json()[0]['token']}"
        assert len(ann.get(f"{path}/members").json()) == 6
        assert ann.get(f"{path}/invites").json()[0]["used"] == 5


def test_a_membership_by_an_invite_survives_a_crash(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann, closing(Person(own_service.url)) as bob:
        made = invite(ann, ann.application())
        token = accept(bob, made).json()["token"]
        own_service.kill()
        own_service.start()
        for person in (ann, bob):
            person.base_url = httpx.URL(own_service.url + "/api/v1")
        assert bob.get(f"/applications/{token}").is_success
        assert ann.get(f"/applications/{token}/invites").json()[0]["used"] == 1


@pytest.fixture
def invited(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    service.start(
        HUBBUB_REGISTRATION="invited", HUBBUB_PUBLIC_URL="https://chat.example.com/", HUBBUB_USER_INVITES_PER_HOUR="5"
    )
    yield service
    service.kill()


def test_an_invited_person_may_sign_up_and_is_a_member(invited: Service) -> None:
    with closing(invited.make_operator()) as operator, httpx.Client(base_url=invited.url + "/api/v1") as nobody:
        token = operator.post("/applications", json={"name": "Ours"}).json()["token"]
        path = f"/applications/{token}/invites"
        made = operator.post(path, json={"role": "admin"}).json()
        assert made["link"] == f"https://chat.example.com/invite#{made['code']}"
        refused = problem(nobody.post("/auth/register", json=GOOD), 403)
        assert "invitation" in str(refused["error"])
        problem(nobody.post("/auth/register", json={**GOOD, "invite": "A" * 22}), 403)
        taken = {**GOOD, "email": "operator@example.com", "invite": made["code"]}
        problem(nobody.post("/auth/register", json=taken), 422)
        assert nobody.post("/auth/register", json={**GOOD, "invite": made["code"]}).status_code == 201
        assert nobody.get(f"/applications/{token}").is_success
        assert accept(nobody, made).json() == {"token": token, "role": "admin"}
        late = {**GOOD, "email": "late@example.com", "invite": made["code"]}
        problem(nobody.post("/auth/register", json=late), 403)
        for _ in range(4):
            assert operator.post(path, json={"role": "member"}).status_code == 201
        must_be_refused(operator.post(path, json={"role": "member"}), 5, "invites")


async def test_wrong_codes_of_an_address_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logins, "WRONG_CODES_OF_ADDRESS", WRONG_CODES_OF_ADDRESS._replace(most=4, each_ms=10**7))
    async with served(tmp_path / "data") as url, httpx.AsyncClient(base_url=url + "/api/v1") as ann:

        async def tries(path: str, **fields: object) -> int:
            content = {"confirm": {"password": "another one"}, "accept": {}}.get(path.rpartition("/")[2], GOOD)
            return (await ann.post(path, json={**content, **fields})).status_code

        assert await tries("/auth/register", email="first@example.com") == 201
        wrong = [
            await tries("/invites/accept", code="wrong"),
            await tries("/auth/register", invite="wrong"),
            await tries("/auth/setup", code="wrong"),
            await tries("/auth/password-reset/confirm", code="wrong"),
        ]
        assert wrong == [404, 403, 404, 404]
        assert await tries("/invites/accept", code="wrong") == 429
        assert await tries("/auth/register", invite="wrong") == 429
        assert await tries("/auth/setup", code="wrong") == 429
        assert await tries("/auth/password-reset/confirm", code="wrong") == 429
        assert await tries("/auth/register", email="second@example.com") == 201, "all else goes on"
    assert "Codes from 127.0.0.1 are refused for now: Too many wrong codes" in caplog.text
