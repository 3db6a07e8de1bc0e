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


class Team:
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
def team(service: Served) -> Iterator[Team]:
    with closing(Team(service.url)) as team:
        yield team


@pytest.fixture(scope="module")
def unchanged() -> Iterator[dict[str, Team]]:
    """Users and an application that no test changes, by the URL of their service."""
    teams: dict[str, Team] = {}
    yield teams
    for team in teams.values():
        team.close()


@pytest.mark.parametrize("who", ["owner", "admin", "member", "stranger"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} {row[1] or '/'}")
def test_each_caller_may_do_what_the_table_says(
    service: Served,
    unchanged: dict[str, Team],
    request: pytest.FixtureRequest,
    who: str,
    row: tuple[str, str, dict[str, object] | None, int, int, int, int],
) -> None:
    method, path, body, *statuses = row
    status = statuses[["owner", "admin", "member", "stranger"].index(who)]
    if method == "GET" or status >= 400:
        team = unchanged.get(service.url) or unchanged.setdefault(service.url, Team(service.url))
    else:
        team = request.getfixturevalue("team")
    names = {"{owner}": team.owner.email, "{other}": team.other.email}
    content = body and {key: names.get(str(value), value) for key, value in body.items()}
    person: Person = getattr(team, who)
    place = f"/applications/{team.token}{path}".replace("{invite}", team.invite)
    answer = person.request(method, place, json=content)
    assert answer.status_code == status, answer.text
    if not answer.is_success:
        problem(answer, answer.status_code)


def test_an_application_looks_missing_to_a_stranger(team: Team) -> None:
    for path in ("", "/chats", "/chats/1/messages", "/members"):
        there = team.stranger.get(f"/applications/{team.token}{path}")
        nowhere = team.stranger.get(f"/applications/AAAAAAAAAAAAAAAAAAAAAA{path}")
        assert there.content == nowhere.content
    assert team.stranger.get("/applications").json() == []


def test_a_removed_member_is_out_at_once(team: Team) -> None:
    path = f"/applications/{team.token}/chats/1/messages"
    assert team.member.get(path).is_success
    gone = team.admin.request("DELETE", f"/applications/{team.token}/members?email={team.member.email}")
    assert gone.status_code == 204
    problem(team.member.get(path), 404)
    problem(team.member.post(path, json={"body": "x"}), 404)


def test_a_role_can_be_changed(team: Team) -> None:
    members = f"/applications/{team.token}/members"
    assert team.owner.post(members, json={"email": team.member.email, "role": "admin"}).is_success
    assert team.member.patch(f"/applications/{team.token}", json={"name": "Mine"}).is_success
    roles = {member["email"]: member["role"] for member in team.owner.get(members).json()}
    assert roles[team.member.email] == "admin"


def test_members_are_listed_page_by_page(team: Team) -> None:
    members = f"/applications/{team.token}/members"
    everybody = team.owner.get(members)
    assert "link" not in everybody.headers
    found, path, pages = [], f"{members}?limit=2", 0
    while path:
        answer = team.owner.get(path)
        assert 1 <= len(answer.json()) <= 2
        found += answer.json()
        path = answer.links.get("next", {}).get("url", "").removeprefix("/api/v1")
        pages += 1
    assert found == everybody.json()
    assert pages == (len(found) + 1) // 2 > 1
    problem(team.owner.get(f"{members}?limit=101"), 422)


def test_wrong_members_are_refused(team: Team) -> None:
    members = f"/applications/{team.token}/members"
    for content in (
        {"email": "not.there@example.com", "role": "member"},
        {"email": team.stranger.email, "role": "owner"},
        {"email": team.stranger.email},
    ):
        problem(team.owner.post(members, json=content), 422)
    problem(team.owner.request("DELETE", members, json={"email": team.stranger.email}), 404)


@pytest.mark.parametrize("more", ["%20", "%09", "%00", "%C3%A9", "A", "%2F"])
def test_a_text_that_only_looks_like_a_token_is_not_found(ann: Person, more: str) -> None:
    """Some databases ignore trailing blanks in comparisons, so such a text must never reach one."""
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
