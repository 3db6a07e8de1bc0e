"""Deleting chats, applications and accounts."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from hubbub.chat import erasing
from hubbub.chat.commands import Command, EndErasure, Outcome, PostMessage
from hubbub.chat.ticket import Ticket
from hubbub.embedded import store
from hubbub.embedded.intake import DirectIntake
from tests.conftest import Person, Served, eventually, eventually_async, until_locked_out
from tests.http.test_accounts import problem
from tests.worst import served

PASSWORD = {"currentPassword": "correct horse"}
WRONG = {"currentPassword": "wrong horse"}


def reads_of(chat: str) -> list[str]:
    return [
        chat,
        f"{chat}/messages",
        f"{chat}/messages?before=2",
        f"{chat}/messages?after=0",
        f"{chat}/messages/1",
        f"{chat}/messages/search?q=one",
        f"{chat}/messages/stream",
    ]


def must_be_there(person: Person, chat: str) -> None:
    """Request everything once, so that the service caches all of it."""
    *others, search, _ = reads_of(chat)
    assert all(person.get(path).is_success for path in others)
    assert person.get(search).status_code in (200, 503)  # there may be no search server, or no index yet


def must_be_gone(person: Person, chat: str) -> None:
    for path in reads_of(chat):
        problem(person.get(path), 404)
    for key in ({}, {"Idempotency-Key": "again"}):
        problem(person.post(f"{chat}/messages", json={"body": "late"}, headers=key), 404)
    problem(person.put(f"{chat}/messages", json={"messageNumber": 1, "body": "late"}), 404)
    problem(person.delete(f"{chat}/messages/1"), 404)
    problem(person.patch(chat, json={"title": "Back"}), 404)
    problem(person.delete(chat), 404)


def delete_me(person: Person, content: dict[str, str] | None = None, **query: str) -> httpx.Response:
    return person.request("DELETE", "/auth/me", json=content or PASSWORD, params=query)


@pytest.fixture
def token(ann: Person, bob: Person) -> str:
    """The token of Ann's application. Bob is a member, and both have written in its chat."""
    chat = ann.chat()
    token = chat.split("/")[2]
    assert ann.post(f"/applications/{token}/members", json={"email": bob.email, "role": "member"}).is_success
    ann.post(f"{chat}/messages", json={"body": "one"}, headers={"Idempotency-Key": "again"})
    bob.post(f"{chat}/messages", json={"body": "two"})
    return token


def test_a_deleted_chat_is_gone_for_everybody_and_its_number_stays_taken(token: str, ann: Person, bob: Person) -> None:
    chats = f"/applications/{token}/chats"
    ann.chat(token)
    for person in (ann, bob):
        must_be_there(person, f"{chats}/1")
        assert len(person.get(chats).json()) == 2
    problem(bob.delete(f"{chats}/1"), 403)
    answer = ann.delete(f"{chats}/1")
    assert (answer.status_code, answer.content) == (204, b"")
    for person in (ann, bob):
        must_be_gone(person, f"{chats}/1")
        assert [chat["chatNumber"] for chat in person.get(chats).json()] == [2]
        assert person.get(f"/applications/{token}").json()["chatsCount"] == 1
    assert ann.delete(f"{chats}/2").status_code == 204
    assert ann.chat(token) == f"{chats}/3"
    assert ann.post(f"{chats}/3/messages", json={"body": "goes on"}).json() == {"messageNumber": 1}


def test_a_deleted_application_is_gone_for_everybody(token: str, ann: Person, bob: Person) -> None:
    chat = f"/applications/{token}/chats/1"
    for person in (ann, bob):
        must_be_there(person, chat)
    problem(bob.delete(f"/applications/{token}"), 403)
    assert ann.delete(f"/applications/{token}").status_code == 204
    nowhere = ann.get("/applications/AAAAAAAAAAAAAAAAAAAAAA")
    for person in (ann, bob):
        must_be_gone(person, chat)
        for path in ("", "/members", "/chats"):
            assert problem(person.get(f"/applications/{token}{path}"), 404) == nowhere.json()
        problem(person.post(f"/applications/{token}/chats"), 404)
        assert person.get("/applications").json() == []
    problem(ann.delete(f"/applications/{token}"), 404)


@pytest.mark.parametrize("what", ["chat", "application", "account"])
def test_open_streams_end(token: str, ann: Person, bob: Person, what: str) -> None:
    chat = f"/applications/{token}/chats/1"
    ends: list[tuple[str, int]] = []
    listening = threading.Event()

    def listen() -> None:
        with httpx_sse.connect_sse(bob, "GET", f"{chat}/messages/stream?after=1") as source:
            for event in source.iter_sse():
                listening.set()
                if event.event == "end":
                    ends.append((event.event, event.json()["status"]))

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(20)
    if what == "account":
        assert delete_me(bob).status_code == 204
    else:
        assert ann.delete(chat if what == "chat" else f"/applications/{token}").status_code == 204
    thread.join(20)
    assert ends == [("end", 401 if what == "account" else 404)]


@pytest.mark.parametrize("left", [False, True])
def test_a_deleted_accounts_messages_stay_under_another_name(
    token: str, ann: Person, bob: Person, nobody: httpx.Client, left: bool
) -> None:
    messages = f"/applications/{token}/chats/1/messages"
    copy = {"Authorization": f"Bearer {bob.cookies['auth_token']}"}
    assert [each["senderName"] for each in ann.get(messages).json()] == [bob.name, ann.name]
    if left:
        members = f"/applications/{token}/members"
        assert bob.request("DELETE", members, json={"email": bob.email}).status_code == 204
    answer = delete_me(bob)
    assert (answer.status_code, answer.content) == (204, b"")
    assert 'auth_token=""' in answer.headers["set-cookie"]
    for path in ("/auth/me", messages, "/applications"):
        problem(nobody.get(path, headers=copy), 401)
    problem(nobody.post(messages, json={"body": "late"}, headers=copy), 401)
    problem(nobody.post("/auth/login", json={"email": bob.email, "password": "correct horse"}), 401)
    names = ["Deleted user", ann.name]
    eventually(lambda: [each["senderName"] for each in ann.get(messages).json()] == names)
    assert [each["senderName"] for each in ann.get(f"{messages}?limit=5").json()] == names
    assert ann.get(f"{messages}/2").json()["senderName"] == "Deleted user"
    assert [each["email"] for each in ann.get(f"/applications/{token}/members").json()] == [ann.email]
    again = {"name": "Another", "email": bob.email, "password": "correct horse"}
    assert nobody.post("/auth/register", json=again).status_code == 201
    assert nobody.get("/applications").json() == []
    problem(nobody.get(messages), 404)


def test_an_owner_of_applications_is_told_what_to_do_first(token: str, ann: Person) -> None:
    refused = problem(delete_me(ann), 422)
    assert "hand over or delete the application that you own first" in str(refused["errors"])
    assert ann.get("/auth/me").is_success
    assert ann.delete(f"/applications/{token}").status_code == 204
    assert delete_me(ann).status_code == 204
    problem(ann.get("/auth/me"), 401)


def test_deleting_an_account_needs_its_password(service: Served, bob: Person) -> None:
    problem(bob.delete("/auth/me"), 422)
    problem(delete_me(bob, messages="burn"), 422)
    refused = problem(delete_me(bob, WRONG), 403)
    assert refused["error"] == "The current password is wrong."

    def tries(_: int) -> int:
        return {403: 401}.get(status := delete_me(bob, WRONG).status_code, status)

    assert 8 <= until_locked_out(tries) < 15
    assert bob.get("/auth/me").is_success


def test_an_account_that_is_deleted_twice_at_once_is_deleted_by_one(bob: Person) -> None:
    with ThreadPoolExecutor() as at_once:
        answers = list(at_once.map(lambda _: delete_me(bob), range(4)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 204
    assert set(statuses[1:]) <= {401, 403}  # 403: the password of no account is wrong


def test_erased_messages_are_gone_everywhere(token: str, ann: Person, bob: Person) -> None:
    chat = f"/applications/{token}/chats/1"
    for number in range(3, 63):
        bob.post(f"{chat}/messages", json={"body": f"zebra {number}"})
    ann.post(f"{chat}/messages", json={"body": "zebra of ann's"})
    assert delete_me(bob, messages="erase").status_code == 204
    assert bob.get("/auth/me").status_code == 401

    def left() -> list[str]:
        return [each["body"] for each in ann.get(f"{chat}/messages?limit=100").json()]

    eventually(lambda: left() == ["zebra of ann's", "one"], within_s=60)
    assert ann.get(f"{chat}/messages/2").status_code == 404
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 2))
    found = ann.get(f"{chat}/messages/search?q=zebra")
    assert found.status_code == 503 or [each["body"] for each in found.json()] == ["zebra of ann's"]
    assert ann.post(f"{chat}/messages", json={"body": "goes on"}).json() == {"messageNumber": 64}


async def test_a_message_that_is_stored_late_is_erased_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request was accepted before the account was deleted, and its commit is slow."""
    arrived, released, checked = (asyncio.Event() for _ in range(3))
    # The commits are in another process.
    commit_begun, commit_released = multiprocessing.Event(), multiprocessing.Event()
    post, accept, apply = DirectIntake.post, DirectIntake.accept, store.SqliteStore.apply
    ended: list[tuple[int, ...]] = []

    async def slow_post(self: DirectIntake, *what: Any) -> Ticket:
        arrived.set()
        await released.wait()
        return await post(self, *what)

    def watched_accept(self: DirectIntake, command: Command) -> Ticket:
        ticket = accept(self, command)
        if isinstance(command, EndErasure):
            checked.set()
            ticket.then(lambda _: ended.append(command.user_ids))
        return ticket

    def slow_apply(self: store.SqliteStore, batch: Sequence[Command]) -> list[Outcome]:
        if any(isinstance(command, PostMessage) for command in batch):
            commit_begun.set()
            commit_released.wait(30)
        return apply(self, batch)

    monkeypatch.setattr(DirectIntake, "post", slow_post)
    monkeypatch.setattr(DirectIntake, "accept", watched_accept)
    monkeypatch.setattr(store.SqliteStore, "apply", slow_apply)
    monkeypatch.setattr(erasing, "_LOOK_S", 0.02)
    monkeypatch.setattr(store, "_UNDER_WAY_MS", 10**6)
    async with (
        served(tmp_path / "data") as url,
        httpx.AsyncClient(base_url=url + "/api/v1") as ann,
        httpx.AsyncClient(base_url=url + "/api/v1") as bob,
    ):
        for client, name in ((ann, "ann"), (bob, "bob")):
            account = {"name": name, "email": f"{name}@example.com", "password": "correct horse"}
            assert (await client.post("/auth/register", json=account)).status_code == 201
        path = f"/applications/{(await ann.post('/applications', json={'name': 'Ours'})).json()['token']}"
        await ann.post(f"{path}/members", json={"email": "bob@example.com", "role": "member"})
        assert (await ann.post(f"{path}/chats")).status_code == 201
        late = asyncio.ensure_future(bob.post(f"{path}/chats/1/messages", json={"body": "late"}))
        await arrived.wait()
        gone = await bob.request("DELETE", "/auth/me?messages=erase", json={"currentPassword": "correct horse"})
        assert gone.status_code == 204
        released.set()
        assert await asyncio.to_thread(commit_begun.wait, 20)
        monkeypatch.setattr(store, "_UNDER_WAY_MS", -1000)
        await asyncio.wait_for(checked.wait(), 20)
        commit_released.set()
        assert (await late).status_code == 200
        await eventually_async(lambda: any(ended))
        assert (await ann.get(f"{path}/chats/1/messages")).json() == []
