"""Who may do what: every guarded route, for every kind of caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.conftest import Person, Served, eventually
from tests.http.test_accounts import problem

# method, path, body, and the status for owner, admin, member (who did not send the message), stranger
TABLE = [
    ("GET", "", None, 200, 200, 200, 404),
    ("PATCH", "", {"name": "New"}, 200, 200, 403, 404),
    ("GET", "/members", None, 200, 200, 200, 404),
    ("POST", "/members", {"email": "{other}", "role": "member"}, 201, 201, 403, 404),
    ("DELETE", "/members", {"email": "{other}"}, 204, 204, 403, 404),
    ("DELETE", "/members", {"email": "{owner}"}, 403, 403, 403, 404),
    ("POST", "/members", {"email": "{owner}", "role": "member"}, 403, 403, 403, 404),
    ("POST", "/invites", {"role": "admin"}, 201, 201, 403, 404),
    ("GET", "/invites", None, 200, 200, 403, 404),
    ("DELETE", "/invites/{invite}", None, 204, 204, 403, 404),
    ("POST", "/chats", {"title": "T"}, 201, 201, 201, 404),
    ("GET", "/chats", None, 200, 200, 200, 404),
    ("GET", "/chats/1", None, 200, 200, 200, 404),
    ("PATCH", "/chats/1", {"title": "T"}, 200, 200, 200, 404),
    ("POST", "/chats/1/messages", {"body": "x"}, 200, 200, 200, 404),
    ("GET", "/chats/1/messages", None, 200, 200, 200, 404),
    ("GET", "/chats/1/messages/1", None, 200, 200, 200, 404),
    ("PUT", "/chats/1/messages", {"messageNumber": 1, "body": "x"}, 403, 403, 403, 404),
    ("PATCH", "/chats/1/messages/1", {"body": "x"}, 403, 403, 403, 404),
    ("DELETE", "/chats/1/messages/1", None, 204, 204, 403, 404),
    ("DELETE", "/chats/1", None, 204, 204, 403, 404),
    ("PUT", "/owner", {"email": "{other}"}, 204, 403, 403, 404),
    ("DELETE", "", None, 204, 403, 403, 404),
]


class House:
    def __init__(self, url: str) -> None:
        self.owner, self.admin, self.member, self.stranger, self.other = (Person(url) for _ in range(5))
        self.token = self.owner.application()
        for person, role in ((self.admin, "admin"), (self.member, "member"), (self.other, "member")):
            added = self.owner.post(f"/applications/{self.token}/members", json={"email": person.email, "role": role})
            assert added.status_code == 201
        made = self.owner.post(f"/applications/{self.token}/invites", json={"role": "member"})
        self.invite = made.json()["id"]
        chat = self.owner.chat(self.token)
        assert self.other.post(f"{chat}/messages", json={"body": "the other's"}).is_success

    def close(self) -> None:
        for person in (self.owner, self.admin, self.member, self.stranger, self.other):
            person.close()


@pytest.fixture
def house(service: Served) -> Iterator[House]:
    with closing(House(service.url)) as house:
        yield house


@pytest.fixture(scope="module")
def unchanged() -> Iterator[dict[str, House]]:
    """For each service, by its URL, users and an application that no test changes."""
    houses: dict[str, House] = {}
    yield houses
    for house in houses.values():
        house.close()


@pytest.mark.parametrize("who", ["owner", "admin", "member", "stranger"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[1] or '/'}")
def test_who_may(
    service: Served,
    unchanged: dict[str, House],
    request: pytest.FixtureRequest,
    who: str,
    row: tuple[str, str, dict[str, object] | None, int, int, int, int],
) -> None:
    method, path, body, *statuses = row
    status = statuses[["owner", "admin", "member", "stranger"].index(who)]
    if method == "GET" or status >= 400:
        house = unchanged.get(service.url) or unchanged.setdefault(service.url, House(service.url))
    else:
        house = request.getfixturevalue("house")
    names = {"{owner}": house.owner.email, "{other}": house.other.email}
    content = body and {key: names.get(str(value), value) for key, value in body.items()}
    person: Person = getattr(house, who)
    place = f"/applications/{house.token}{path}".replace("{invite}", house.invite)
    answer = person.request(method, place, json=content)
    assert answer.status_code == status, answer.text
    if not answer.is_success:
        problem(answer, answer.status_code)


def test_a_strangers_view_is_that_of_an_application_that_does_not_exist(house: House) -> None:
    for path in ("", "/chats", "/chats/1/messages", "/members"):
        there = house.stranger.get(f"/applications/{house.token}{path}")
        nowhere = house.stranger.get(f"/applications/AAAAAAAAAAAAAAAAAAAAAA{path}")
        assert there.content == nowhere.content
    assert house.stranger.get("/applications").json() == []


def test_a_removed_member_is_out_at_once(house: House) -> None:
    path = f"/applications/{house.token}/chats/1/messages"
    assert house.member.get(path).is_success
    gone = house.admin.request("DELETE", f"/applications/{house.token}/members?email={house.member.email}")
    assert gone.status_code == 204
    problem(house.member.get(path), 404)
    problem(house.member.post(path, json={"body": "x"}), 404)


def test_a_role_can_be_changed(house: House) -> None:
    members = f"/applications/{house.token}/members"
    assert house.owner.post(members, json={"email": house.member.email, "role": "admin"}).is_success
    assert house.member.patch(f"/applications/{house.token}", json={"name": "Mine"}).is_success
    roles = {member["email"]: member["role"] for member in house.owner.get(members).json()}
    assert roles[house.member.email] == "admin"


def test_members_are_listed_page_by_page(house: House) -> None:
    members = f"/applications/{house.token}/members"
    everybody = house.owner.get(members)
    assert "link" not in everybody.headers
    found, path, pages = [], f"{members}?limit=2", 0
    while path:
        answer = house.owner.get(path)
        assert 1 <= len(answer.json()) <= 2
        found += answer.json()
        path = answer.links.get("next", {}).get("url", "").removeprefix("/api/v1")
        pages += 1
    assert found == everybody.json()
    assert pages == (len(found) + 1) // 2 > 1
    problem(house.owner.get(f"{members}?limit=101"), 422)


def test_wrong_members_are_refused(house: House) -> None:
    members = f"/applications/{house.token}/members"
    for content in (
        {"email": "not.there@example.com", "role": "member"},
        {"email": house.stranger.email, "role": "owner"},
        {"email": house.stranger.email},
    ):
        problem(house.owner.post(members, json=content), 422)
    problem(house.owner.request("DELETE", members, json={"email": house.stranger.email}), 404)


@pytest.mark.parametrize("more", ["%20", "%09", "%00", "%C3%A9", "A", "%2F"])
def test_what_only_looks_like_a_token_is_nothing(ann: Person, more: str) -> None:
    """Some databases ignore trailing blanks when they compare; no such text may reach one."""
    chat = ann.chat()
    token = chat.split("/")[2]
    assert ann.post(f"{chat}/messages", json={"body": "one"}).status_code == 200
    other = chat.replace(token, token + more)
    application = f"/applications/{token}{more}"
    for method, path, content in (
        ("GET", f"{other}/messages", None),
        ("GET", f"{other}/messages/1", None),
        ("GET", other, None),
        ("GET", f"{application}/chats", None),
        ("GET", application, None),
        ("POST", f"{other}/messages", {"body": "two"}),
        ("DELETE", f"{other}/messages/1", None),
    ):
        assert ann.request(method, path, json=content).status_code == 404, (method, path)
    assert ann.put("/applications", json={"token": f"{token} ", "name": "X"}).status_code == 404
    assert ann.post(f"{chat}/messages", json={"body": "two"}).json() == {"messageNumber": 2}
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 2))
    assert [each["body"] for each in ann.get(f"{chat}/messages").json()] == ["two", "one"]
