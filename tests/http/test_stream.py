"""Streams send each message in time and once, only to members, and from where a listener left off."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Served, Service, eventually, new_metrics


@dataclass
class Heard:
    """The events that one listener received: kind, id, content and time."""

    events: list[tuple[str, str, dict[str, object], float]] = field(default_factory=list)
    ended: bool = False

    def bodies(self) -> list[object]:
        return [content["body"] for kind, _, content, _ in self.events if kind == "message"]


@contextmanager
def listening(url: str, person: Person, chat: str, *, last: str | None = None, query: str = "") -> Iterator[Heard]:
    heard, connected = Heard(), threading.Event()
    headers = {"Last-Event-ID": last} if last is not None else {}
    client = httpx.Client(base_url=url + "/api/v1", cookies=dict(person.cookies), timeout=30)

    def read() -> None:
        try:
            with client.stream("GET", f"{chat}/messages/stream{query}", headers=headers) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                kind = identity = ""
                for line in answer.iter_lines():
                    connected.set()
                    name, _, value = line.partition(": ")
                    if name == "id":
                        identity = value
                    elif name == "event":
                        kind = value
                    elif name == "data":
                        heard.events.append((kind, identity, json.loads(value), time.monotonic()))
        except (httpx.TransportError, httpx.StreamError):
            pass
        heard.ended = True

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert connected.wait(10)
    yield heard
    client.close()


@pytest.fixture
def urls(service: Served) -> list[str]:
    return [part.url for part in service.apis] if isinstance(service, ClusterStack) else [service.url]


def test_messages_changes_and_their_order(ann: Person, bob: Person, urls: list[str]) -> None:
    token = ann.application()
    ann.post(f"/applications/{token}/members", json={"email": bob.email, "role": "member"})
    chat = ann.chat(token)
    ann.post(f"{chat}/messages", json={"body": "before"})
    with listening(urls[-1], bob, chat) as heard:
        for number in range(30):
            ann.post(f"{chat}/messages", json={"body": f'm{number}\n"é😀'})
        eventually(lambda: len(heard.events) >= 30)
        assert heard.bodies() == [f'm{number}\n"é😀' for number in range(30)]
        assert [identity for _, identity, _, _ in heard.events] == [str(number) for number in range(2, 32)]
        listed = bob.get(f"{chat}/messages?limit=1").json()[0]
        assert heard.events[-1][2] == listed
        ann.put(f"{chat}/messages", json={"messageNumber": 3, "body": "edited"})
        ann.delete(f"{chat}/messages/4")
        eventually(lambda: len(heard.events) >= 32)
        assert [kind for kind, _, _, _ in heard.events[30:]] == ["edited", "deleted"]
        assert heard.events[30][2]["body"] == "edited"
        assert heard.events[31][2] == {"messageNumber": 4}


def test_changes_among_many_messages_at_once_are_sent(ann: Person, urls: list[str]) -> None:
    chat = ann.chat()
    for _ in range(20):
        ann.post(f"{chat}/messages", json={"body": "before"})
    asked: list[tuple[str, str, dict[str, object]]] = [("POST", "/messages", {"body": "x" * 4_000}) for _ in range(180)]
    asked[100:100] = [("PUT", "/messages", {"messageNumber": number, "body": "edited"}) for number in range(1, 11)]
    asked[150:150] = [("DELETE", f"/messages/{number}", {}) for number in range(11, 21)]
    at = httpx.URL(urls[0])
    with listening(urls[-1], ann, chat) as heard, ExitStack() as many:
        connections = [
            many.enter_context(socket.create_connection((at.host, at.port or 80), timeout=30)) for _ in asked
        ]
        for connection, (method, path, content) in zip(connections, asked, strict=True):
            body = json.dumps(content)
            connection.sendall(
                f"{method} /api/v1{chat}{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Cookie: auth_token={ann.cookies['auth_token']}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
        assert all(connection.recv(65536)[9:10] == b"2" for connection in connections)
        eventually(lambda: len(heard.events) == 200)
    changed = sorted((str(content["messageNumber"]), kind) for kind, _, content, _ in heard.events if kind != "message")
    assert changed == sorted((str(number), "edited" if number < 11 else "deleted") for number in range(1, 21))


def test_a_message_arrives_soon_after_its_acknowledgement(ann: Person, urls: list[str]) -> None:
    chat = ann.chat()
    delays = []
    with listening(urls[-1], ann, chat) as heard:
        for number in range(40):
            ann.post(f"{chat}/messages", json={"body": str(number)})
            acknowledged = time.monotonic()
            eventually(lambda number=number: len(heard.events) > number)  # type: ignore[misc]
            delays.append(heard.events[number][3] - acknowledged)
    print(f"median {sorted(delays)[20] * 1000:.1f} ms, worst {max(delays) * 1000:.1f} ms after the acknowledgement")


@pytest.mark.parametrize("way", ["header", "query"])
def test_a_listener_that_reconnects_misses_nothing(ann: Person, urls: list[str], way: str) -> None:
    chat = ann.chat()
    for number in range(250):
        ann.post(f"{chat}/messages", json={"body": str(number)})
    options = {"last": "10"} if way == "header" else {"query": "?after=10"}
    with listening(urls[0], ann, chat, **options) as heard:
        ann.post(f"{chat}/messages", json={"body": "live"})
        eventually(lambda: len(heard.events) >= 241)
        assert heard.bodies() == [*map(str, range(10, 250)), "live"]


def test_deleted_messages_hold_no_id_back_and_nothing_is_sent_twice(ann: Person, urls: list[str]) -> None:
    chat = ann.chat()
    for number in range(1, 121):
        ann.post(f"{chat}/messages", json={"body": str(number)})
    gone = {1, *range(7, 100, 11)}
    for number in gone:
        assert ann.delete(f"{chat}/messages/{number}").is_success
    left = [number for number in range(1, 121) if number not in gone]
    with listening(urls[-1], ann, chat, last="0") as heard:
        eventually(lambda: len(heard.events) == len(left))
        assert [(identity, content["messageNumber"]) for _, identity, content, _ in heard.events] == [
            (str(number), number) for number in left
        ]
    with listening(urls[0], ann, chat, last=heard.events[60][1]) as again:
        eventually(lambda: len(again.events) == len(left) - 61)
    assert [content["messageNumber"] for _, _, content, _ in heard.events[:61] + again.events] == left


def test_an_id_that_was_never_sent_hides_nothing(ann: Person, urls: list[str]) -> None:
    chat = ann.chat()
    ann.post(f"{chat}/messages", json={"body": "before"})
    with listening(urls[-1], ann, chat, last="5000") as heard:
        ann.post(f"{chat}/messages", json={"body": "after"})
        eventually(lambda: heard.bodies() == ["after"])


def test_a_kill_is_survived_without_a_gap(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        with listening(own_service.url, ann, chat) as heard:
            ann.post(f"{chat}/messages", json={"body": "1"})
            eventually(lambda: len(heard.events) == 1)
            own_service.kill()
            eventually(lambda: heard.ended)
        own_service.start()
        ann.base_url = httpx.URL(own_service.url + "/api/v1")
        ann.post(f"{chat}/messages", json={"body": "2"})
        with listening(own_service.url, ann, chat, last=heard.events[-1][1]) as again:
            eventually(lambda: again.bodies() == ["2"])


def test_the_streams_of_a_user_are_bounded_and_closing_one_makes_room(
    ann: Person, bob: Person, service: Served, urls: list[str]
) -> None:
    token = ann.application()
    chat = ann.chat(token)
    ann.post(f"/applications/{token}/members", json={"email": bob.email, "role": "member"})
    before = streams_in(new_metrics(urls[0]))
    most = 100 * processes_in(new_metrics(urls[0]))
    with ExitStack() as rest:
        with ExitStack() as many:
            fill(many, urls[0], ann, chat, most)
            eventually(lambda: streams_open(urls[0]) == before + most)
            refused = httpx.get(f"{urls[0]}/api/v1{chat}/messages/stream", cookies=dict(ann.cookies))
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
            assert rest.enter_context(asking(urls[0], bob, chat)) == b"200"
        eventually(lambda: streams_open(urls[0]) == before + 1)
        assert rest.enter_context(asking(urls[0], ann, chat)) == b"200"
    eventually(lambda: streams_open(urls[0]) == before)


def fill(many: ExitStack, url: str, person: Person, chat: str, most: int) -> None:
    """Open so many streams. The system chooses the process for each; one that is full refuses."""
    opened = 0
    while opened < most:
        with ExitStack() as one:
            status = one.enter_context(asking(url, person, chat))
            if status == b"200":
                opened += 1
                many.enter_context(one.pop_all())
            else:
                assert status == b"429"
                assert opened >= 100


@contextmanager
def asking(url: str, person: Person, chat: str) -> Iterator[bytes]:
    """Open a stream that nobody reads, and yield the status of its answer."""
    at = httpx.URL(url)
    with socket.create_connection((at.host, at.port or 80), timeout=30) as connection:
        cookie = f"Cookie: auth_token={person.cookies['auth_token']}"
        connection.sendall(f"GET /api/v1{chat}/messages/stream HTTP/1.1\r\nHost: x\r\n{cookie}\r\n\r\n".encode())
        yield connection.recv(65536).split(b" ", 2)[1]


def streams_open(url: str) -> float:
    return streams_in(httpx.get(url + "/metrics", timeout=30).text)


def streams_in(text: str) -> float:
    return float(re.findall(r"^hubbub_streams (\S+)$", text, re.MULTILINE)[0])


def processes_in(text: str) -> int:
    """How many processes serve: each may have 5,000 streams."""
    (limit,) = re.findall(r"^hubbub_streams_limit (\S+)$", text, re.MULTILINE)
    assert float(limit) in (5000, 10000)
    return round(float(limit) / 5000)


def test_a_stop_waits_for_no_listener(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        with listening(own_service.url, ann, chat) as heard:
            start = time.monotonic()
            assert own_service.stop() == 0
            eventually(lambda: heard.ended)
            assert time.monotonic() - start < 10


def test_only_members_may_listen_and_only_while_they_are_members(
    ann: Person, bob: Person, stranger: Person, urls: list[str]
) -> None:
    token = ann.application()
    chat = ann.chat(token)
    assert stranger.get(f"{chat}/messages/stream").status_code == 404
    assert httpx.get(urls[0] + "/api/v1" + f"{chat}/messages/stream").status_code == 401
    ann.post(f"/applications/{token}/members", json={"email": bob.email, "role": "member"})
    with listening(urls[-1], bob, chat) as heard:
        ann.post(f"{chat}/messages", json={"body": "for both"})
        eventually(lambda: heard.bodies() == ["for both"])
        assert ann.request("DELETE", f"/applications/{token}/members", json={"email": bob.email}).status_code == 204
        ann.post(f"{chat}/messages", json={"body": "for ann"})
        eventually(lambda: heard.ended)
        assert heard.bodies() == ["for both"]
        assert heard.events[-1][0] == "end"


@contextmanager
def talking(person: Person, chat: str) -> Iterator[None]:
    """Let a user post without a pause."""
    over = threading.Event()

    def talk() -> None:
        while not over.is_set():
            person.post(f"{chat}/messages", json={"body": "and another thing"}).raise_for_status()
            time.sleep(0.01)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", ["logout", "all sessions", "removal"])
def test_a_listener_who_loses_access_receives_nothing_more(
    ann: Person, bob: Person, urls: list[str], busy: bool, how: str
) -> None:
    token = ann.application()
    chat = ann.chat(token)
    ann.post(f"/applications/{token}/members", json={"email": bob.email, "role": "member"})
    with listening(urls[-1], bob, chat) as heard, talking(ann, chat) if busy else nullcontext():
        if busy:
            eventually(lambda: len(heard.events) > 10)
        if how == "logout":
            assert bob.delete("/auth/logout").is_success
        elif how == "all sessions":  # from another device
            credentials = {"email": bob.email, "password": "correct horse"}
            token = httpx.post(urls[0] + "/api/v1/auth/tokens", json=credentials).json()["token"]
            answer = httpx.delete(urls[0] + "/api/v1/auth/sessions", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 204
        else:
            assert ann.request("DELETE", f"/applications/{token}/members", json={"email": bob.email}).is_success
        over = time.monotonic()
        eventually(lambda: heard.ended, 3)
        kind, _, content, at = heard.events[-1]
        assert (kind, content["status"]) == ("end", 404 if how == "removal" else 401)
        assert at - over < 2
        print(f"told {at - over:.2f} s after")
