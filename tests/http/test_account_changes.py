"""Changing a name and a password, leaving an application and handing it over."""

from __future__ import annotations

import httpx
import pytest

from tests.conftest import Person, Served, eventually, until_locked_out
from tests.http.test_accounts import problem


@pytest.fixture
def token(ann: Person, bob: Person) -> str:
    """The token of Ann's application. Bob is a member, and both have written in its chat."""
    chat = ann.chat()
    token = chat.split("/")[2]
    assert ann.post(f"/applications/{token}/members", json={"email": bob.email, "role": "member"}).is_success
    for person in (ann, bob):
        assert person.post(f"{chat}/messages", json={"body": "hello"}).is_success
    return token


def test_a_new_name_is_on_all_messages(token: str, ann: Person, bob: Person) -> None:
    messages = f"/applications/{token}/chats/1/messages"
    assert [each["senderName"] for each in ann.get(messages).json()] == [bob.name, ann.name]
    name = 'Robert "Bob" \\ Bobson é'
    answer = bob.patch("/auth/me", json={"name": name})
    assert (answer.status_code, answer.json()["user"]["name"]) == (200, name)
    assert bob.get("/auth/me").json() == answer.json()
    body = '", "senderName":"Eve" \\'
    assert bob.post(f"{messages}", json={"body": body}).is_success
    assert ann.get(f"{messages}").json()[0]["senderName"] == name
    names = [name, name, ann.name]
    eventually(lambda: [each["senderName"] for each in ann.get(messages).json()] == names)
    assert [each["body"] for each in ann.get(messages).json()] == [body, "hello", "hello"]
    assert [each["senderName"] for each in ann.get(f"{messages}?limit=7").json()] == names
    assert bob.delete(f"{messages}/2").status_code == 204
    name = "Bob"
    assert bob.patch("/auth/me", json={"name": name}).is_success
    eventually(lambda: [each["senderName"] for each in ann.get(messages).json()] == [name, ann.name])
    assert ann.get(f"{messages}/3").json()["senderName"] == name
    assert name in [each["name"] for each in ann.get(f"/applications/{token}/members").json()]


def test_a_name_must_be_valid(bob: Person) -> None:
    for name in ("", "  ", "n" * 256, None):
        problem(bob.patch("/auth/me", json={"name": name}), 422)
    assert bob.get("/auth/me").json()["user"]["name"] == bob.name


def test_changes_of_a_name_are_rate_limited(bob: Person) -> None:
    def tries(turn: int) -> int:
        status = bob.patch("/auth/me", json={"name": f"Bob {turn}"}).status_code
        return 401 if status == 200 else status

    assert until_locked_out(tries) == 20


def test_a_new_password_ends_all_other_sessions(service: Served, bob: Person, nobody: httpx.Client) -> None:
    def status(token: str) -> int:
        return httpx.get(service.url + "/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code

    old = {"email": bob.email, "password": "correct horse"}
    others = [bob.cookies["auth_token"], bob.post("/auth/tokens", json=old).json()["token"]]
    change = {"currentPassword": "correct horse", "password": "battery staple"}
    answer = bob.put("/auth/me/password", json=change | {"password_confirmation": "battery staple"})
    assert (answer.status_code, answer.json()) == (200, {"message": "Password changed."})
    assert bob.cookies["auth_token"] not in others
    assert bob.get("/auth/me").is_success
    assert [status(token) for token in others] == [401, 401]
    problem(nobody.post("/auth/login", json=old), 401)
    token = nobody.post("/auth/tokens", json=old | {"password": "battery staple"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    back = {"currentPassword": "battery staple", "password": "correct horse"}
    renewed = nobody.put("/auth/me/password", json=back, headers=headers).json()
    assert set(renewed) == {"message", "token", "expiresAt"}
    assert [status(renewed["token"]), status(token), bob.get("/auth/me").status_code] == [200, 401, 401]


def test_changing_the_password_needs_the_current_one(bob: Person) -> None:
    good = {"currentPassword": "correct horse", "password": "battery staple"}
    for change in ({"password": "short"}, {"password_confirmation": "another"}, {"currentPassword": 1}):
        problem(bob.put("/auth/me/password", json=good | change), 422)
    wrong = good | {"currentPassword": "wrong horse"}
    assert problem(bob.put("/auth/me/password", json=wrong), 403)["error"] == "The current password is wrong."

    def tries(_: int) -> int:
        return {403: 401}.get(status := bob.put("/auth/me/password", json=wrong).status_code, status)

    assert 8 <= until_locked_out(tries) < 15
    assert bob.post("/auth/login", json={"email": bob.email, "password": "correct horse"}).status_code == 429


def test_a_member_can_leave_and_the_owner_cannot(token: str, ann: Person, bob: Person) -> None:
    members = f"/applications/{token}/members"
    refused = problem(ann.request("DELETE", members, json={"email": ann.email}), 403)
    assert refused["error"] == "The owner can't leave the application. Hand it over first, or delete it."
    assert bob.request("DELETE", members, json={"email": bob.email.upper()}).status_code == 204
    problem(bob.get(members), 404)
    problem(bob.post(f"/applications/{token}/chats/1/messages", json={"body": "late"}), 404)
    assert bob.get("/applications").json() == []
    assert [each["email"] for each in ann.get(members).json()] == [ann.email]


def test_an_application_is_handed_over_to_a_member(token: str, ann: Person, bob: Person, stranger: Person) -> None:
    owner, members = f"/applications/{token}/owner", f"/applications/{token}/members"
    problem(ann.put(owner, json={"email": stranger.email}), 404)
    problem(ann.put(owner, json={"email": "not.there@example.com"}), 404)
    problem(bob.put(owner, json={"email": bob.email}), 403)
    problem(stranger.put(owner, json={"email": bob.email}), 404)
    assert ann.put(owner, json={"email": ann.email}).status_code == 204
    assert {each["email"]: each["role"] for each in ann.get(members).json()}[ann.email] == "owner"
    assert ann.put(owner, json={"email": bob.email}).status_code == 204
    roles = {each["email"]: each["role"] for each in ann.get(members).json()}
    assert roles == {ann.email: "admin", bob.email: "owner"}
    problem(ann.put(owner, json={"email": ann.email}), 403)
    problem(ann.delete(f"/applications/{token}"), 403)
    assert ann.request("DELETE", members, json={"email": ann.email}).status_code == 204
    gone = ann.request("DELETE", "/auth/me", json={"currentPassword": "correct horse"})
    assert gone.status_code == 204
    assert bob.delete(f"/applications/{token}").status_code == 204
