"""Two processes serve one embedded service: what one has acknowledged, the other shows at once; what is limited is
limited over both. Each test has a client at each process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.conftest import Person, Service, eventually, has_ended, new_metrics
from tests.faults.posting import posting, stored


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("two") / "data")
    service.start(HUBBUB_PROCESSES="2")
    yield service
    assert service.stop() == 0


@pytest.fixture
def own_two(tmp_path: Path) -> Iterator[Service]:
    """Of the test's own, which it may damage."""
    service = Service(tmp_path / "data")
    service.start(HUBBUB_PROCESSES="2")
    yield service
    if service.process.poll() is None:
        service.kill()


def serving(service: Service) -> list[psutil.Process]:
    """The processes that serve, the first one first."""
    others = [part for part in service.parts() if part.name().startswith("hubbub-serve")]
    return [psutil.Process(service.process.pid), *others]


def served_by(process: psutil.Process, client: httpx.Client) -> bool:
    """Whether the client's connection is with this process."""
    answer = client.get("/auth/me")
    stream = answer.extensions["network_stream"]
    mine = stream.get_extra_info("socket").getsockname()[1]
    return any(each.raddr and each.raddr.port == mine for each in process.net_connections("tcp"))


def client_at(service: Service, process: psutil.Process, cookies: httpx.Cookies | None = None) -> httpx.Client:
    """A client whose connection, which it keeps, is with this process."""
    for _ in range(200):
        kept = httpx.Limits(keepalive_expiry=None)  # another connection may be with another process
        client = httpx.Client(base_url=service.url + "/api/v1", timeout=30, cookies=cookies, limits=kept)
        if served_by(process, client):
            return client
        client.close()
    raise AssertionError("no connection came to this process")


class Both:
    """A user with a client at each process, the first process's first, and a chat."""

    def __init__(self, service: Service) -> None:
        with closing(Person(service.url)) as person:
            self.name, self.email = person.name, person.email
            self.token = person.application()
            self.chat = person.chat(self.token)
            self.cookies = person.cookies
        self.service = service
        self.clients = self.of(self.cookies)

    def of(self, cookies: httpx.Cookies) -> list[httpx.Client]:
        return [client_at(self.service, process, cookies) for process in serving(self.service)]

    @property
    def messages(self) -> str:
        return f"{self.chat}/messages"


@pytest.fixture
def both(two: Service) -> Both:
    return Both(two)


def bodies(client: httpx.Client, path: str) -> list[str]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return [message["body"] for message in answer.json()]


def removed(client: httpx.Client, token: str, email: str) -> int:
    return client.request("DELETE", f"/applications/{token}/members", json={"email": email}).status_code


def test_both_processes_get_clients(two: Service) -> None:
    assert len(serving(two)) == 2
    for process in serving(two):
        client_at(two, process).close()


def test_each_shows_what_the_other_has_acknowledged(both: Both) -> None:
    posted: list[str] = []
    for number in range(300):
        body = f"message {number}"
        answer = both.clients[number % 2].post(both.messages, json={"body": body})
        assert answer.json() == {"messageNumber": number + 1}
        posted.insert(0, body)
        other = both.clients[1 - number % 2]
        assert bodies(other, both.messages) == posted[:10]
        listed = other.get(f"/applications/{both.token}/chats").json()
        assert [chat["messagesCount"] for chat in listed] == [number + 1]


def test_posts_of_both_at_once_have_numbers_of_their_own(both: Both) -> None:
    def post(at: int) -> list[int]:
        return [
            both.clients[at].post(both.messages, json={"body": f"{at} {number}"}).json()["messageNumber"]
            for number in range(200)
        ]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(post, range(2))
    assert first == sorted(first)
    assert second == sorted(second)
    assert sorted(first + second) == list(range(1, 401))
    for client in both.clients:
        assert bodies(client, f"{both.messages}?limit=100") == bodies(both.clients[0], f"{both.messages}?limit=100")


def test_changes_of_messages_are_shown_by_the_other(both: Both) -> None:
    first, second = both.clients
    for body in ("one", "two", "three"):
        first.post(both.messages, json={"body": body})
    assert bodies(second, both.messages) == ["three", "two", "one"]
    assert first.patch(f"{both.messages}/2", json={"body": "TWO"}).status_code == 200
    assert bodies(second, both.messages) == ["three", "TWO", "one"]
    assert second.delete(f"{both.messages}/3").status_code == 204
    assert bodies(first, both.messages) == ["TWO", "one"]
    assert [chat["messagesCount"] for chat in first.get(f"/applications/{both.token}/chats").json()] == [2]
    assert first.post(both.messages, json={"body": "four"}).json() == {"messageNumber": 4}
    assert bodies(second, both.messages) == ["four", "TWO", "one"]


def test_a_renamed_user_has_the_new_name_at_the_other(both: Both) -> None:
    first, second = both.clients
    first.post(both.messages, json={"body": "hello"})
    assert second.get(both.messages).json()[0]["senderName"] == both.name
    assert first.patch("/auth/me", json={"name": "Another Name"}).status_code == 200
    assert second.get(both.messages).json()[0]["senderName"] == "Another Name"
    assert second.get("/auth/me").json()["user"]["name"] == "Another Name"
    second.post(both.messages, json={"body": "again"})
    assert [message["senderName"] for message in first.get(both.messages).json()] == ["Another Name"] * 2


def test_an_ended_session_is_over_at_the_other(both: Both) -> None:
    first, second = both.clients
    assert second.get(both.messages).status_code == 200
    assert first.delete("/auth/logout").status_code == 200
    second.cookies = both.cookies
    assert second.get(both.messages).status_code == 401
    assert second.post(both.messages, json={"body": "x"}).status_code == 401


def test_a_new_password_ends_the_sessions_at_the_other(both: Both) -> None:
    first, second = both.clients
    assert second.get(both.messages).status_code == 200
    change = {"currentPassword": "correct horse", "password": "another horse"}
    changed = first.put("/auth/me/password", json=change)
    assert changed.status_code == 200, changed.text
    second.cookies = both.cookies
    assert second.get(both.messages).status_code == 401


def test_a_removed_member_is_a_stranger_at_the_other(two: Service, both: Both) -> None:
    with closing(Person(two.url)) as bob:
        bobs = both.of(bob.cookies)
        for number in range(3):
            adding, other = both.clients[number % 2], bobs[1 - number % 2]
            assert other.get(both.messages).status_code == 404
            added = adding.post(f"/applications/{both.token}/members", json={"email": bob.email, "role": "member"})
            assert added.status_code == 201, added.text
            assert other.get(both.messages).status_code == 200
            assert other.get(both.messages).status_code == 200
            assert removed(adding, both.token, bob.email) == 204
            assert other.get(both.messages).status_code == 404
            assert other.post(both.messages, json={"body": "x"}).status_code == 404


def test_chats_are_made_renamed_and_deleted_for_both(both: Both) -> None:
    first, second = both.clients
    chats = f"/applications/{both.token}/chats"
    assert len(second.get(chats).json()) == 1
    made = first.post(chats, json={"title": "New"}).json()["chatNumber"]
    assert [chat["chatNumber"] for chat in second.get(chats).json()] == [made, 1]
    assert second.post(f"{chats}/{made}/messages", json={"body": "x"}).status_code == 200
    assert second.patch(f"{chats}/{made}", json={"title": "Newer"}).status_code == 200
    assert first.get(chats).json()[0]["title"] == "Newer"
    assert first.get(f"{chats}/{made}/messages").status_code == 200
    assert second.delete(f"{chats}/{made}").status_code == 204
    assert first.get(f"{chats}/{made}/messages").status_code == 404
    assert first.post(f"{chats}/{made}/messages", json={"body": "x"}).status_code == 404
    assert [chat["chatNumber"] for chat in first.get(chats).json()] == [1]


def test_a_retry_at_the_other_adds_nothing(both: Both) -> None:
    def post(at: int, key: str) -> dict[str, int]:
        headers = {"Idempotency-Key": key}
        found: dict[str, int] = both.clients[at].post(both.messages, json={"body": key}, headers=headers).json()
        return found

    with ThreadPoolExecutor(2) as threads:
        for number in range(50):
            tries = list(threads.map(post, range(2), [f"key {number}"] * 2))
            assert tries == [{"messageNumber": number + 1}] * 2 or len({each["messageNumber"] for each in tries}) == 1
    for client in both.clients:
        shown = bodies(client, f"{both.messages}?limit=100")
        assert sorted(shown) == sorted(f"key {number}" for number in range(50))


def test_a_stream_hears_what_is_posted_at_the_other(both: Both) -> None:
    first, second = both.clients
    with second.stream("GET", f"{both.messages}/stream") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        for number in range(5):
            first.post(both.messages, json={"body": f"message {number}"})
            data = next(line for line in lines if line.startswith("data:"))
            assert json.loads(data.removeprefix("data:"))["body"] == f"message {number}"


def test_a_search_finds_at_either_what_was_posted_at_the_other(both: Both) -> None:
    first, second = both.clients
    first.post(both.messages, json={"body": "a needle in the hay"})
    second.post(both.messages, json={"body": "another needle"})
    for client in both.clients:
        eventually(
            lambda: (
                sorted(bodies(client, f"{both.messages}/search?q=needle"))  # noqa: B023 - called here
                == ["a needle in the hay", "another needle"]
            )
        )


def test_failed_logins_count_together(both: Both) -> None:
    refused = []
    for number in range(12):
        login = {"email": both.email, "password": "wrong horse"}
        refused.append(both.clients[number % 2].post("/auth/login", json=login).status_code)
    assert refused == [401] * 10 + [429] * 2


def test_the_rate_of_a_user_holds_over_both(own_two: Service) -> None:
    own_two.stop()
    own_two.start(HUBBUB_PROCESSES="2", HUBBUB_USER_RATE="20")
    both = Both(own_two)
    allowed = [0, 0]

    def ask(at: int) -> None:
        for _ in range(60):
            allowed[at] += both.clients[at].get(both.messages).status_code == 200

    begun = time.monotonic()
    threads = [threading.Thread(target=ask, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(allowed)
    most = 40 + 20 * (time.monotonic() - begun)
    assert sum(allowed) <= most + 1, "forty at once, and then twenty a second"
    assert sum(allowed) > 40


def test_the_figures_are_those_of_both_whoever_is_asked(both: Both) -> None:
    def posts() -> float:
        lines = new_metrics(both.service.url).splitlines()
        (found,) = [line for line in lines if line.startswith("hubbub_writes_applied_total ")]
        return float(found.split()[1])

    before = posts()
    for number in range(40):
        both.clients[number % 2].post(both.messages, json={"body": "x"})
    for _ in range(5):
        assert posts() == before + 40


def test_a_process_that_stood_still_shows_all_when_it_goes_on(own_two: Service) -> None:
    both = Both(own_two)
    first, second = both.clients
    assert bodies(second, both.messages) == []
    frozen = serving(own_two)[1]
    frozen.suspend()
    for number in range(200):
        assert first.post(both.messages, json={"body": f"message {number}"}).status_code == 200
    frozen.resume()
    assert bodies(second, both.messages) == [f"message {number}" for number in range(199, 189, -1)]


def test_a_process_that_was_overtaken_shows_all_when_it_goes_on(own_two: Service) -> None:
    """More is written than the ring holds."""
    both = Both(own_two)
    first, second = both.clients
    with closing(Person(own_two.url)) as bob:
        first.post(f"/applications/{both.token}/members", json={"email": bob.email, "role": "member"})
        bobs = both.of(bob.cookies)[1]
        assert bodies(bobs, both.messages) == []
    assert bodies(second, both.messages) == []
    frozen = serving(own_two)[1]
    frozen.suspend()
    long = "x" * 10_000
    for number in range(1800):
        assert first.post(both.messages, json={"body": f"{number} {long}"[:10_000]}).status_code == 200
    assert removed(first, both.token, bob.email) == 204
    assert first.delete("/auth/logout").status_code == 200
    frozen.resume()
    assert bobs.get(both.messages).status_code == 404
    second.cookies = both.cookies
    assert second.get(both.messages).status_code == 401


def test_a_process_that_is_killed_ends_the_service_and_loses_nothing(own_two: Service) -> None:
    both = Both(own_two)
    parts = own_two.parts()
    with posting(own_two, both.chat, dict(both.cookies)) as acknowledged:
        serving(own_two)[1].kill()
    assert own_two.process.wait(30) == 1
    eventually(lambda: all(map(has_ended, parts)))
    own_two.start(HUBBUB_PROCESSES="2")
    assert set(acknowledged) <= set(stored(own_two, both.chat, dict(both.cookies)))


@pytest.mark.parametrize("to", ["the first", "all"])
def test_a_stop_finishes_what_both_have_accepted(own_two: Service, to: str) -> None:
    both = Both(own_two)
    with posting(own_two, both.chat, dict(both.cookies)) as acknowledged:
        if to == "all":
            for part in own_two.parts():
                part.send_signal(signal.SIGTERM)
        own_two.process.send_signal(signal.SIGTERM)
    assert own_two.process.wait(60) == 0
    own_two.start()
    assert set(acknowledged) <= set(stored(own_two, both.chat, dict(both.cookies)))


def test_a_second_service_on_the_port_is_refused(two: Service, tmp_path: Path) -> None:
    second = Service(tmp_path / "data", port=urlsplit(two.url).port or 0)
    with pytest.raises(AssertionError, match="Address already in use"):
        second.start(HUBBUB_PROCESSES="2")
    assert second.process.wait(30) != 0


def test_a_command_changes_an_account_in_both(both: Both) -> None:
    """``hubbub users``, when it returns."""
    for client in both.clients:
        assert client.get(both.messages).status_code == 200
    command = ["users", "reset-password", both.email, "--data", str(both.service.data)]
    done = subprocess.run([sys.executable, "-m", "hubbub", *command], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for client in both.clients:
        assert client.get(both.messages).status_code == 401


def test_messages_are_erased_only_once_both_have_stored_what_they_accepted(own_two: Service) -> None:
    both = Both(own_two)
    with closing(Person(own_two.url)) as bob:
        both.clients[0].post(f"/applications/{both.token}/members", json={"email": bob.email, "role": "member"})
        (bobs,) = both.of(bob.cookies)[:1]
        assert bobs.post(both.messages, json={"body": "to be erased"}).status_code == 200
    frozen = serving(own_two)[1]
    frozen.suspend()
    deleted = bobs.request("DELETE", "/auth/me?messages=erase", json={"currentPassword": "correct horse"})
    assert deleted.status_code == 204
    eventually(lambda: "will be erased later: Another process" in own_two.log, within_s=30)
    assert bodies(both.clients[0], both.messages) == ["to be erased"]
    frozen.resume()
    eventually(lambda: bodies(both.clients[1], both.messages) == [], within_s=30)
