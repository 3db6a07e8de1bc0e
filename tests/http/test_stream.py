"""Messages as they arrive: in time, once each, to members alone, and from where a listener left off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Served, Service, eventually


@dataclass
class Heard:
    """What one listener was told: kind, id, content and when."""

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


def test_it_arrives_within_100_ms_of_the_acknowledgement(ann: Person, urls: list[str]) -> None:
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
def test_who_comes_back_misses_nothing(ann: Person, urls: list[str], way: str) -> None:
    chat = ann.chat()
    for number in range(250):
        ann.post(f"{chat}/messages", json={"body": str(number)})
    options = {"last": "10"} if way == "header" else {"query": "?after=10"}
    with listening(urls[0], ann, chat, **options) as heard:
        ann.post(f"{chat}/messages", json={"body": "live"})
        eventually(lambda: len(heard.events) >= 241)
        assert heard.bodies() == [*map(str, range(10, 250)), "live"]


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


def test_a_stop_waits_for_no_listener(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        with listening(own_service.url, ann, chat) as heard:
            start = time.monotonic()
            assert own_service.stop() == 0
            eventually(lambda: heard.ended)
            assert time.monotonic() - start < 10


def test_members_only_and_only_while_they_are(ann: Person, bob: Person, stranger: Person, urls: list[str]) -> None:
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


def test_a_session_that_ends_takes_its_listeners_along(ann: Person, urls: list[str]) -> None:
    chat = ann.chat()
    with listening(urls[0], ann, chat) as heard:
        ann.delete("/auth/logout")
        eventually(lambda: heard.ended, 15)
