"""No user can pass for another: a message names its sender by an id, because names are not unique."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.conftest import Person, Served, eventually


class Two:
    """Two members of one application who have the same name, and a chat with a message of each."""

    def __init__(self, url: str) -> None:
        self.first, self.second = Person(url, "Ann Lee"), Person(url, "Ann Lee")
        self.token = self.first.application()
        self.members = f"/applications/{self.token}/members"
        self.put = self.first.post(self.members, json={"email": self.second.email, "role": "member"}).json()
        self.messages = self.first.chat(self.token) + "/messages"
        self.ids = [me(self.first), me(self.second)]
        for person in (self.first, self.second):
            assert person.post(self.messages, json={"body": "a needle"}).is_success


def me(person: Person) -> str:
    return str(person.get("/auth/me").json()["user"]["id"])


@pytest.fixture
def two(service: Served) -> Iterator[Two]:
    two = Two(service.url)
    yield two
    for person in (two.first, two.second):
        person.close()


def test_an_id_is_unique_stable_and_unguessable(two: Two, service: Served) -> None:
    assert len({*two.ids}) == 2
    assert all(re.fullmatch(r"[\w-]{16}", each) for each in two.ids), "96 random bits"
    with closing(httpx.Client(base_url=service.url + "/api/v1")) as again:
        login = again.post("/auth/login", json={"email": two.first.email, "password": "correct horse"})
        assert login.is_success
        assert again.get("/auth/me").json()["user"]["id"] == two.ids[0]


def test_every_read_has_the_senders_id(two: Two) -> None:
    first, second = two.ids

    def senders(query: str = "") -> list[tuple[int, str]]:
        found = two.second.get(f"{two.messages}{query}").json()
        return [(message["messageNumber"], message["senderId"]) for message in found]

    assert senders() == senders("?page=1") == senders("?before=3") == senders("?after=0") == [(2, second), (1, first)]
    assert two.second.get(f"{two.messages}/1").json()["senderId"] == first
    edited = two.first.patch(f"{two.messages}/1", json={"body": "the needle"}).json()
    assert (edited["senderId"], edited["senderName"]) == (first, "Ann Lee")
    assert two.first.put(two.messages, json={"messageNumber": 1, "body": "a needle"}).json()["senderId"] == first
    assert senders() == [(2, second), (1, first)]
    eventually(lambda: sorted(senders("/search?q=needle")) == [(1, first), (2, second)])


def test_a_stream_has_the_senders_id(two: Two) -> None:
    first, second = two.ids
    events: list[tuple[str, str]] = []
    with two.second.stream("GET", f"{two.messages}/stream?after=1") as stream:
        lines = stream.iter_lines()
        events.append(next_event(lines))
        two.first.post(two.messages, json={"body": "while they listen"})
        events.append(next_event(lines))
        two.first.patch(f"{two.messages}/1", json={"body": "edited"})
        events.append(next_event(lines))
    assert events == [("message", second), ("message", first), ("edited", first)]


def next_event(lines: Iterator[str]) -> tuple[str, str]:
    """Return the kind of the next event and the id of the message's sender."""
    kind = ""
    for line in lines:
        kind = line.removeprefix("event: ") if line.startswith("event: ") else kind
        if line.startswith("data: "):
            message: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return kind, message["senderId"]
    raise AssertionError("the stream ended")


def test_only_managers_see_the_emails_of_members(two: Two) -> None:
    emails = {two.first.email, two.second.email}
    assert {member.get("email") for member in two.first.get(two.members).json()} == emails
    assert two.put["email"] == two.second.email
    assert all(member.keys() == {"id", "name", "role"} for member in two.second.get(two.members).json())
    two.first.post(two.members, json={"email": two.second.email, "role": "admin"})
    assert {member.get("email") for member in two.second.get(two.members).json()} == emails


def test_the_list_of_members_has_the_same_ids(two: Two) -> None:
    assert (two.put["id"], two.put["role"]) == (two.ids[1], "member")
    assert {member["id"]: member["role"] for member in two.first.get(two.members).json()} == {
        two.ids[0]: "owner",
        two.ids[1]: "member",
    }
