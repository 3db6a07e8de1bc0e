from __future__ import annotations

import base64
import json

import httpx
import pytest

from tests.conftest import Person, Served, until_locked_out

GOOD = {"name": "Ann", "email": "ann@example.com", "password": "secret1"}


def problem(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, object] = answer.json()
    assert content["status"] == status
    assert content["error"] == content["detail"]
    return content


def test_register_logs_in_with_a_cookie_no_script_can_read(nobody: httpx.Client) -> None:
    answer = nobody.post("/auth/register", json={**GOOD, "email": "first@example.com"})
    assert answer.status_code == 201
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("auth_token=")
    assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Max-Age=604800", "Path=/"))
    assert "Secure" not in cookie  # this service is served without TLS
    me = nobody.get("/auth/me").json()["user"]
    assert (me["email"], me["name"]) == ("first@example.com", "Ann")
    assert me["createdAt"].endswith("Z")


def test_emails_are_the_same_in_any_case(ann: Person, nobody: httpx.Client) -> None:
    taken = nobody.post("/auth/register", json={**GOOD, "email": ann.email.upper()})
    assert problem(taken, 422)["errors"] == ["email has already been taken"]
    assert nobody.post("/auth/login", json={"email": ann.email.upper(), "password": "correct horse"}).is_success


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "n" * 256}, "name"),
        ({"name": 7}, "name"),
        ({"name": None}, "name"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@" + "b" * 255}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "p" * 129}, "password"),
        ({"password_confirmation": "another"}, "password_confirmation"),
    ],
)
def test_register_names_the_wrong_field(nobody: httpx.Client, change: dict[str, object], field: str) -> None:
    errors = problem(nobody.post("/auth/register", json={**GOOD, **change}), 422)["errors"]
    assert isinstance(errors, list)
    assert [error.split()[0] for error in errors] == [field]


def test_every_wrong_field_gets_a_sentence(nobody: httpx.Client) -> None:
    errors = problem(nobody.post("/auth/register", json={}), 422)["errors"]
    assert isinstance(errors, list)
    assert {error.split()[0] for error in errors} == {"name", "email", "password"}


def test_wrong_password_and_unknown_email_look_the_same(ann: Person, nobody: httpx.Client) -> None:
    wrong = nobody.post("/auth/login", json={"email": ann.email, "password": "wrong horse"})
    unknown = nobody.post("/auth/login", json={"email": "not." + ann.email, "password": "wrong horse"})
    problem(wrong, 401)
    assert wrong.content == unknown.content


def test_guessing_locks_the_account_and_no_others_at_the_address(ann: Person, bob: Person) -> None:
    answers: list[httpx.Response] = []

    def tries(_: int) -> int:
        answers.append(bob.post("/auth/login", json={"email": ann.email, "password": "wrong horse"}))
        return answers[-1].status_code

    assert 10 <= until_locked_out(tries) < 15
    problem(answers[-1], 429)
    assert 0 < int(answers[-1].headers["retry-after"]) <= 30
    assert answers[-1].headers["ratelimit-limit"] == "10"
    assert answers[-1].headers["ratelimit-remaining"] == "0"
    assert bob.post("/auth/tokens", json={"email": bob.email, "password": "correct horse"}).is_success
    assert bob.post("/auth/login", json={"email": bob.email, "password": "correct horse"}).is_success


def test_a_bearer_token_works_wherever_the_cookie_does(ann: Person, nobody: httpx.Client) -> None:
    answer = nobody.post("/auth/tokens", json={"email": ann.email, "password": "correct horse"})
    assert answer.status_code == 201
    assert set(answer.json()) == {"token", "expiresAt"}
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert nobody.get("/auth/me", headers=headers).json()["user"]["email"] == ann.email
    token = nobody.post("/applications", json={"name": "By program"}, headers=headers).json()["token"]
    assert nobody.get(f"/applications/{token}/chats", headers=headers).json() == []


def test_logout_kills_the_token_and_its_copies(ann: Person, nobody: httpx.Client) -> None:
    copy = {"Authorization": f"Bearer {ann.cookies['auth_token']}"}
    refreshed = nobody.post("/auth/refresh", headers=copy)
    assert refreshed.status_code == 200
    assert nobody.get("/auth/me", headers=copy).is_success
    out = ann.delete("/auth/logout")
    assert out.status_code == 200
    assert 'auth_token=""' in out.headers["set-cookie"]
    nobody.cookies.clear()
    problem(nobody.get("/auth/me", headers=copy), 401)
    problem(nobody.get("/auth/me", headers={"Authorization": f"Bearer {refreshed.json()['token']}"}), 401)


def test_all_sessions_of_a_user_end_at_once_and_no_others(service: Served, ann: Person, bob: Person) -> None:
    credentials = {"email": ann.email, "password": "correct horse"}
    bearer = ann.post("/auth/tokens", json=credentials).json()["token"]
    refreshed = httpx.post(service.url + "/api/v1/auth/refresh", headers={"Authorization": f"Bearer {bearer}"})
    tokens = [ann.cookies["auth_token"], bearer, refreshed.json()["token"]]

    def status(token: str) -> int:
        return httpx.get(service.url + "/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code

    assert [status(token) for token in tokens] == [200] * 3
    out = ann.delete("/auth/sessions")
    assert (out.status_code, out.content) == (204, b"")
    assert 'auth_token=""' in out.headers["set-cookie"]
    assert [status(token) for token in tokens] == [401] * 3
    assert bob.get("/auth/me").is_success
    assert ann.post("/auth/login", json=credentials).is_success
    assert ann.post("/auth/refresh").is_success
    assert ann.get("/auth/me").is_success
    assert [status(token) for token in tokens] == [401] * 3


def test_refresh_gives_a_new_cookie_that_works(ann: Person) -> None:
    before = ann.cookies["auth_token"]
    assert ann.post("/auth/refresh").status_code == 200
    assert ann.cookies["auth_token"] != before
    assert ann.get("/auth/me").is_success


def test_forged_tokens_are_refused(ann: Person, nobody: httpx.Client) -> None:
    head, claims, signature = ann.cookies["auth_token"].split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    forged = [
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{head}.{claims}.{signature[:-4]}AAAA",
        "a.b.c",
        "é",
    ]
    for token in forged:
        problem(nobody.get("/auth/me", headers=[(b"authorization", b"Bearer " + token.encode())]), 401)


def test_no_route_answers_without_credentials(service: Served, nobody: httpx.Client) -> None:
    document = httpx.get(service.url + "/openapi.json").json()
    checked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation["security"]:
                target = path.replace("{token}", "t").replace("{number}", "1").replace("{message}", "1")
                answer = httpx.request(method, service.url + target)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                checked += 1
    assert checked == 37
