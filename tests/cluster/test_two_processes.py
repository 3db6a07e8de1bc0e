"""Two API processes behave as one service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from hubbub.cluster.generations import LEASE_S
from hubbub.loadtest.cluster import ClusterStack
from tests.cluster.traffic import everything
from tests.conftest import Person, eventually, until_locked_out


@pytest.fixture
def ann(cluster: ClusterStack) -> Iterator[Person]:
    with closing(Person(cluster.apis[0].url)) as person:
        yield person


def elsewhere(cluster: ClusterStack, person: Person) -> httpx.Client:
    """Return a client of the same user at the other process."""
    return httpx.Client(base_url=cluster.apis[1].url + "/api/v1", cookies=dict(person.cookies), timeout=30)


def test_what_one_acknowledges_the_other_shows_at_once(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    with elsewhere(cluster, ann) as other:
        for number in range(1, 30):
            writer, reader = (ann, other) if number % 2 else (other, ann)
            assert writer.post(f"{chat}/messages", json={"body": f"{number}"}).json() == {"messageNumber": number}
            newest = reader.get(f"{chat}/messages").json()
            assert [message["messageNumber"] for message in newest[:2]] == [number, number - 1][: len(newest)]
            assert reader.get(f"{chat}/messages/{number}").json()["body"] == f"{number}"
        assert ann.put(f"{chat}/messages", json={"messageNumber": 3, "body": "edited"}).status_code == 200
        assert other.get(f"{chat}/messages/3").json()["body"] == "edited"
        assert other.delete(f"{chat}/messages/29").status_code == 204
        assert ann.get(f"{chat}/messages").json()[0]["messageNumber"] == 28


def test_a_process_that_was_frozen_shows_everything_without_lag(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    ann.post(f"{chat}/messages", json={"body": "before"})
    with elsewhere(cluster, ann) as other:
        assert other.get(f"{chat}/messages").json()[0]["body"] == "before"
        cluster.apis[1].pause()
        time.sleep(LEASE_S + 0.5)  # the test needs its lease to be over
        ann.post(f"{chat}/messages", json={"body": "meanwhile"})
        paths = [f"{chat}/{each}" for each in ("messages", "messages/2", "messages?before=3", "messages?after=1")]
        with ThreadPoolExecutor() as clients:
            asked = [clients.submit(other.get, path) for path in paths * 5]
            time.sleep(0.2)  # so that the requests are waiting when it continues
            cluster.apis[1].resume()
        for answer in asked:
            assert "meanwhile" in answer.result().text
            assert "hubbub-lag" not in answer.result().headers


def test_a_chat_opened_at_one_is_listed_at_the_other(cluster: ClusterStack, ann: Person) -> None:
    token = ann.application()
    chats = f"/applications/{token}/chats"
    with elsewhere(cluster, ann) as other:
        for number in range(1, 6):
            assert other.get(chats).json()[:1] == ([] if number == 1 else [other.get(f"{chats}/{number - 1}").json()])
            ann.post(chats, json={"title": f"Chat {number}"})
            assert other.get(chats).json()[0]["title"] == f"Chat {number}"
        ann.patch(f"{chats}/5", json={"title": "Another"})
        assert other.get(chats).json()[0]["title"] == "Another"


def test_all_sessions_end_at_both_also_when_redis_is_lost(cluster: ClusterStack, ann: Person) -> None:
    credentials = {"email": ann.email, "password": "correct horse"}
    for lost in (False, True):
        with elsewhere(cluster, ann) as other:
            chat = ann.chat()
            assert other.get(f"{chat}/messages").status_code == 200
            assert ann.delete("/auth/sessions").status_code == 204
            assert other.get(f"{chat}/messages").status_code == 401
            if lost:
                cluster.redis.command("FLUSHALL")
                assert other.get(f"{chat}/messages").status_code == 401
            assert ann.post("/auth/login", json=credentials).status_code == 200
            with elsewhere(cluster, ann) as again:
                assert again.get(f"{chat}/messages").status_code == 200


def test_a_logout_at_one_counts_at_the_other(cluster: ClusterStack, ann: Person) -> None:
    with elsewhere(cluster, ann) as other:
        assert other.get("/auth/me").status_code == 200
        assert ann.delete("/auth/logout").status_code == 200
        assert other.get("/auth/me").status_code == 401


def test_a_member_removed_at_one_has_no_access_at_the_other(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    members = chat.rsplit("/", 2)[0] + "/members"
    with closing(Person(cluster.apis[1].url)) as bob:
        assert bob.get(f"{chat}/messages").status_code == 404
        ann.post(members, json={"email": bob.email, "role": "member"})
        assert bob.get(f"{chat}/messages").status_code == 200
        assert bob.post(f"{chat}/messages", json={"body": "hi"}).status_code == 200
        assert ann.delete(members, params={"email": bob.email}).status_code == 204
        assert bob.get(f"{chat}/messages").status_code == 404
        assert bob.post(f"{chat}/messages", json={"body": "hi"}).status_code == 404


def test_numbers_are_unique_over_both(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    cookies = dict(ann.cookies)

    def send(sender: int) -> list[int]:
        url = cluster.apis[sender % 2].url + "/api/v1"
        with httpx.Client(base_url=url, cookies=cookies, timeout=30) as client:
            return [
                client.post(f"{chat}/messages", json={"body": f"{sender}/{turn}"}).json()["messageNumber"]
                for turn in range(50)
            ]

    with ThreadPoolExecutor(8) as threads:
        sent = list(threads.map(send, range(8)))
    assert all(numbers == sorted(numbers) for numbers in sent)
    assert sorted(number for numbers in sent for number in numbers) == list(range(1, 401))
    found = dict(everything(ann, chat))
    assert all(
        found[number] == f"{sender}/{turn}"
        for sender, numbers in enumerate(sent)
        for turn, number in enumerate(numbers)
    )
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 400))


def test_retries_at_both_are_one_message(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    cookies = dict(ann.cookies)

    def attempt(turn: int) -> int:
        url = cluster.apis[turn % 2].url + "/api/v1"
        with httpx.Client(base_url=url, cookies=cookies, timeout=30) as client:
            answer = client.post(f"{chat}/messages", json={"body": "x"}, headers={"Idempotency-Key": str(turn // 8)})
            return int(answer.json()["messageNumber"])

    with ThreadPoolExecutor(16) as threads:
        numbers = list(threads.map(attempt, range(64)))
    assert all(len(set(numbers[start : start + 8])) == 1 for start in range(0, 64, 8))
    assert len(everything(ann, chat)) == 8
    eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 8))
    assert [attempt(turn) for turn in (0, 1)] == numbers[:2], "also when the store has them"
    ann.delete(f"{chat}/messages/{numbers[0]}")
    assert attempt(0) == numbers[0]
    assert len(everything(ann, chat)) == 7


def test_a_redis_that_forgot_everything_repeats_no_number(cluster: ClusterStack, ann: Person) -> None:
    chat = ann.chat()
    with elsewhere(cluster, ann) as other:
        for number in range(1, 20, 2):
            assert ann.post(f"{chat}/messages", json={"body": "a"}).json() == {"messageNumber": number}
            cluster.redis.command("FLUSHALL")
            assert other.post(f"{chat}/messages", json={"body": "b"}).json() == {"messageNumber": number + 1}
    assert [number for number, _ in everything(ann, chat)] == list(range(1, 21))


def test_failed_logins_are_counted_over_both(cluster: ClusterStack, ann: Person) -> None:
    def tries(turn: int) -> int:
        wrong = {"email": ann.email, "password": "wrong password"}
        return httpx.post(cluster.apis[turn % 2].url + "/api/v1/auth/login", json=wrong).status_code

    assert 10 <= until_locked_out(tries) < 15
