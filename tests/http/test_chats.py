from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from tests.conftest import Person, Served, Service, eventually
from tests.http.test_accounts import problem


def send(person: Person, chat: str, body: str, **headers: str) -> httpx.Response:
    return person.post(
        f"{chat}/messages", json={"body": body}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def bodies(person: Person, chat: str, query: str = "") -> list[str]:
    answer = person.get(f"{chat}/messages{query}")
    assert answer.status_code == 200, answer.text
    return [message["body"] for message in answer.json()]


def counts(person: Person, chat: str) -> tuple[int, int]:
    """Return the chat's count of messages as the chat has it, and as the list of chats has it."""
    listed = person.get(chat.rsplit("/", 1)[0]).json()
    number = int(chat.rsplit("/", 1)[1])
    return (
        person.get(chat).json()["messagesCount"],
        next(item["messagesCount"] for item in listed if item["chatNumber"] == number),
    )


def test_applications_are_listed_newest_first_with_their_counts(ann: Person) -> None:
    first, second = ann.application(), ann.application()
    ann.chat(first)
    found = ann.get("/applications").json()
    assert [(item["token"], item["chatsCount"]) for item in found] == [(second, 0), (first, 1)]
    assert ann.get("/applications?page=2&limit=1").json() == found[1:]


def test_an_application_can_be_renamed_both_ways(ann: Person) -> None:
    token = ann.application()
    assert ann.put("/applications", json={"token": token, "name": "Put"}).status_code == 200
    assert ann.get(f"/applications/{token}").json()["name"] == "Put"
    assert ann.patch(f"/applications/{token}", json={"name": "Patched"}).json()["name"] == "Patched"


def test_chats_are_numbered_from_one_and_listed_newest_first(ann: Person) -> None:
    token = ann.application()
    path = f"/applications/{token}/chats"
    assert ann.post(path).json() == {"chatNumber": 1}
    assert ann.post(path, json={"title": "Second"}).json() == {"chatNumber": 2}
    second = {"chatNumber": 2, "title": "Second", "messagesCount": 0}
    assert ann.get(path).json() == [second, {"chatNumber": 1, "title": None, "messagesCount": 0}]
    assert ann.get(f"{path}/2").json() == second
    assert ann.patch(f"{path}/2", json={"title": "Renamed"}).json()["title"] == "Renamed"
    assert ann.get(path).json()[0]["title"] == "Renamed"


def test_a_message_is_in_every_read_that_follows(ann: Person) -> None:
    chat = ann.chat()
    assert ann.get(f"{chat}/messages").json() == []
    for number in range(1, 26):
        assert send(ann, chat, f"message {number}").json() == {"messageNumber": number}
        newest = ann.get(f"{chat}/messages").json()
        assert newest[0]["messageNumber"] == number
        assert newest[0]["senderName"] == ann.name
        assert len(newest) == min(number, 10)
        assert ann.get(f"{chat}/messages/{number}").json()["body"] == f"message {number}"


def test_pages_and_keyset_paging_cover_every_message_once(ann: Person) -> None:
    chat = ann.chat()
    for number in range(1, 26):
        send(ann, chat, str(number))
    everything = [str(number) for number in range(25, 0, -1)]
    assert [body for page in range(1, 6) for body in bodies(ann, chat, f"?page={page}&limit=7")] == everything
    seen: list[str] = []
    target = f"/api/v1{chat}/messages?limit=7"
    while target:
        answer = ann.get(httpx.URL(str(ann.base_url)).join(target))
        seen += [message["body"] for message in answer.json()]
        target = answer.links.get("next", {}).get("url", "")
    assert seen == everything
    assert bodies(ann, chat, "?before=4") == ["3", "2", "1"]
    assert bodies(ann, chat, "?after=3&limit=3") == ["6", "5", "4"]
    assert bodies(ann, chat, "?after=25") == []


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "limit=0", "limit=101", "before=0", "after=-1", "page=1&before=3", "page=" + "9" * 40]
)
def test_wrong_paging_is_refused(ann: Person, query: str) -> None:
    problem(ann.get(f"{ann.chat()}/messages?{query}"), 422)


def test_edits_and_deletes_show_at_once(ann: Person) -> None:
    chat = ann.chat()
    for body in ("one", "two", "three"):
        send(ann, chat, body)
    assert ann.put(f"{chat}/messages", json={"messageNumber": 1, "body": "edited"}).status_code == 200
    assert ann.patch(f"{chat}/messages/2", json={"body": "changed"}).json()["editedAt"].endswith("Z")
    assert bodies(ann, chat) == ["three", "changed", "edited"]
    assert ann.delete(f"{chat}/messages/3").status_code == 204
    assert bodies(ann, chat) == ["changed", "edited"]
    problem(ann.get(f"{chat}/messages/3"), 404)
    problem(ann.delete(f"{chat}/messages/3"), 404)
    problem(ann.patch(f"{chat}/messages/3", json={"body": "late"}), 404)
    assert send(ann, chat, "four").json() == {"messageNumber": 4}
    eventually(lambda: counts(ann, chat) == (3, 3))


def test_counts_follow_what_is_stored(ann: Person) -> None:
    chat = ann.chat()
    for number in range(1, 8):
        send(ann, chat, f"message {number}")
    eventually(lambda: counts(ann, chat) == (7, 7))
    ann.delete(f"{chat}/messages/7")
    ann.delete(f"{chat}/messages/2")
    eventually(lambda: counts(ann, chat) == (5, 5))


def test_embedded_counts_are_right_at_once(embedded: Service) -> None:
    with closing(Person(embedded.url)) as ann:
        chat = ann.chat()
        for number in range(1, 4):
            send(ann, chat, f"message {number}")
            assert counts(ann, chat) == (number, number)
        ann.delete(f"{chat}/messages/2")
        assert counts(ann, chat) == (2, 2)


@pytest.mark.parametrize("body", ["", "x" * 10_001, None, 5, ["x"], {}])
def test_a_wrong_body_is_refused_and_takes_no_number(ann: Person, body: object) -> None:
    chat = ann.chat()
    problem(ann.post(f"{chat}/messages", json={"body": body}), 422)
    assert send(ann, chat, "right").json() == {"messageNumber": 1}


@pytest.mark.parametrize("body", ["x" * 10_000, "𝄞" * 10_000, '\0\n\r\t"\\', "  ", "<b>&amp;</b>", "日本語 👩‍👩‍👧"])
def test_any_text_comes_back_as_it_was_sent(ann: Person, body: str) -> None:
    chat = ann.chat()
    assert send(ann, chat, body).status_code == 200
    assert bodies(ann, chat) == [body]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 400), (b"[]", 400), (b'"x"', 400), (b'{"body":"\xff"}', 400), (b"{}", 422), (b"[" * 100_000, 400)],
)
def test_anything_but_a_json_object_is_refused(ann: Person, content: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    problem(ann.post(f"{ann.chat()}/messages", content=content, headers=headers), status)
    problem(ann.post("/applications", content=content, headers=headers), status)


def test_media_size_and_method_are_checked(ann: Person) -> None:
    chat = ann.chat()
    problem(ann.post(f"{chat}/messages", content=b"body=x", headers={"Content-Type": "text/plain"}), 415)
    problem(ann.post(f"{chat}/messages", content=b'{"body":"x"}'), 415)
    problem(ann.post(f"{chat}/messages", json={"body": "x" * 300_000}), 413)
    refused = ann.delete(f"{chat}/messages")
    problem(refused, 405)
    assert refused.headers["allow"] == "GET, HEAD, POST, PUT"
    problem(ann.get("/nothing"), 404)


@pytest.mark.parametrize("number", ["0", "2", "x", "-1", "1.0", "9" * 30, "%31x"])
def test_missing_chats_and_messages_are_not_found(ann: Person, number: str) -> None:
    chat = ann.chat()
    send(ann, chat, "x")
    base = chat.rsplit("/", 1)[0]
    problem(ann.get(f"{base}/{number}"), 404)
    problem(ann.get(f"{base}/{number}/messages"), 404)
    problem(ann.post(f"{base}/{number}/messages", json={"body": "x"}), 404)
    problem(ann.get(f"{chat}/messages/{number}"), 404)


def test_numbers_are_unique_and_gapless_under_concurrency(ann: Person, service: Served) -> None:
    chat = ann.chat()
    cookies = dict(ann.cookies)

    def sender(_: int) -> list[int]:
        with httpx.Client(base_url=service.url + "/api/v1", cookies=cookies) as client:
            return [client.post(f"{chat}/messages", json={"body": "x"}).json()["messageNumber"] for _ in range(25)]

    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(sender, range(8)))
    assert all(run == sorted(run) for run in runs)
    assert sorted(number for run in runs for number in run) == list(range(1, 201))


def test_a_retry_with_the_same_key_adds_nothing(ann: Person, bob: Person) -> None:
    token = ann.application()
    chat = ann.chat(token)
    ann.post(f"/applications/{token}/members", json={"email": bob.email, "role": "member"})
    assert send(ann, chat, "once", Idempotency_Key="k").json() == {"messageNumber": 1}
    assert send(ann, chat, "once", Idempotency_Key="k").json() == {"messageNumber": 1}
    problem(send(ann, chat, "other", Idempotency_Key="k"), 409)
    assert send(bob, chat, "bob's", Idempotency_Key="k").json() == {"messageNumber": 2}
    ann.patch(f"{chat}/messages/1", json={"body": "edited"})
    assert send(ann, chat, "once", Idempotency_Key="k").json() == {"messageNumber": 1}
    ann.delete(f"{chat}/messages/1")
    assert send(ann, chat, "once", Idempotency_Key="k").json() == {"messageNumber": 1}
    assert bodies(ann, chat) == ["bob's"]
    problem(send(ann, chat, "x", Idempotency_Key="k" * 256), 422)


def test_concurrent_retries_are_one_message(ann: Person, service: Served) -> None:
    chat = ann.chat()
    cookies = dict(ann.cookies)

    def attempt(key: int) -> int:
        with httpx.Client(base_url=service.url + "/api/v1", cookies=cookies) as client:
            answer = client.post(f"{chat}/messages", json={"body": "x"}, headers={"Idempotency-Key": str(key)})
            number = answer.json()["messageNumber"]
            assert isinstance(number, int)
            return number

    with ThreadPoolExecutor(16) as threads:
        numbers = list(threads.map(attempt, [key for key in range(8) for _ in range(8)]))
    assert all(len(set(numbers[start : start + 8])) == 1 for start in range(0, 64, 8))
    assert sorted(set(numbers)) == list(range(1, 9))
    eventually(lambda: counts(ann, chat) == (8, 8))
