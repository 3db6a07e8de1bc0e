"""Search, over HTTP, in both modes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.servers import Elasticsearch
from tests.conftest import Person, Served, Service, eventually
from tests.http.search_cases import FILLERS, MESSAGES, QUERIES, Expected
from tests.searching import grow, is_indexed
from tests.servers import need_servers


@pytest.fixture(scope="module")
def with_elasticsearch() -> Iterator[ClusterStack]:
    absent = Elasticsearch.absent()
    if absent:
        pytest.skip(absent)
    need_servers()
    with ClusterStack(search=Elasticsearch) as stack:
        yield stack


class Large(NamedTuple):
    """A service of the embedded mode, to be searched in a chat that is in its index."""

    url: str
    data: Path


@pytest.fixture(scope="module")
def indexed(embedded: Service) -> Large:
    return Large(embedded.url, embedded.data)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Add Elasticsearch in long runs only (--fault-rounds). The port's suite always tests it."""
    if "searched" in metafunc.fixturenames:
        long = metafunc.config.getoption("--fault-rounds") is not None
        large = ["indexed"] if "library" in metafunc.fixturenames else []
        modes = ["embedded", *large, "cluster", *(["with_elasticsearch"] if long else [])]
        metafunc.parametrize("searched", modes, indirect=True, scope="module")


@pytest.fixture(scope="module")
def searched(request: pytest.FixtureRequest) -> Served:
    running: Served = request.getfixturevalue(request.param)
    if isinstance(running, ClusterStack) and running.search is None:
        pytest.skip("not installed: opensearch. With Maven: scripts/install-search.sh")
    return running


def search(person: Person, chat: str, q: str, **more: Any) -> list[dict[str, Any]]:
    answer = person.get(f"{chat}/messages/search", params={"q": q, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def post(person: Person, chat: str, body: str) -> int:
    answer = person.post(f"{chat}/messages", json={"body": body})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["messageNumber"])


class Library:
    """A chat with all the messages of the cases. In the embedded mode it is small, unless the service is Large."""

    def __init__(self, person: Person, searched: Served) -> None:
        self.person = person
        self.chat = person.chat()
        if isinstance(searched, Large):
            grow(person, self.chat)
        # A search server that has just started may need a moment.
        eventually(lambda: person.get(f"{self.chat}/messages/search?q=x").status_code == 200, within_s=30)
        names = list(MESSAGES)
        self.numbers: dict[int, str] = {}
        for place, filler in enumerate(FILLERS):
            post(person, self.chat, filler)
            if place < len(names):
                self.numbers[post(person, self.chat, MESSAGES[names[place]])] = names[place]
        assert len(self.numbers) == len(MESSAGES)
        eventually(lambda: len(search(person, self.chat, "nimbus", limit=100)) == sum("nimbus" in f for f in FILLERS))
        eventually(lambda: bool(search(person, self.chat, "tab")))
        if isinstance(searched, Large):
            eventually(lambda: is_indexed(searched.data, self.chat))
            last = post(person, self.chat, "the last")  # when it is found, the index has all before it
            eventually(lambda: bool(search(person, self.chat, "the last")))
            assert person.delete(f"{self.chat}/messages/{last}").status_code == 204


@pytest.fixture(scope="module")
def library(searched: Served) -> Iterator[Library]:
    with closing(Person(searched.url)) as person:
        yield Library(person, searched)


@pytest.mark.parametrize(("q", "expected"), QUERIES)
def test_exactly_the_expected_messages_are_found(library: Library, q: str, expected: Expected) -> None:
    found = [
        library.numbers.get(each["messageNumber"], each["body"]) for each in search(library.person, library.chat, q)
    ]
    assert (found if isinstance(expected, list) else set(found)) == expected
    assert len(found) == len(expected)


def test_equal_matches_are_newest_first_and_pages_do_not_shift(library: Library) -> None:
    whole = [each["messageNumber"] for each in search(library.person, library.chat, "wombat", limit=100)]
    assert whole == sorted(whole, reverse=True)
    assert len(whole) > 20
    paged = [
        each["messageNumber"]
        for page in range(1, len(whole) // 7 + 2)
        for each in search(library.person, library.chat, "wombat", limit=7, page=page)
    ]
    assert paged == whole
    assert search(library.person, library.chat, "wombat", page=1000) == []


def test_an_empty_query_finds_nothing(library: Library) -> None:
    for q in ("", " ", "\t", "***", "\u200b", "…"):
        assert search(library.person, library.chat, q) == []
    assert library.person.get(f"{library.chat}/messages/search").json() == []


def test_a_hostile_query_is_text(library: Library) -> None:
    for q in (
        "\x00",
        'a"' * 500,
        "* " * 500,
        "😀" * 1000,
        "ab " * 333,
        "NEAR(a b)",
        "{",
        "\\",
        "a" * 1000,
        "\ud7ff\ufffd",
    ):
        answer = library.person.get(f"{library.chat}/messages/search", params={"q": q})
        assert answer.status_code == 200, q
        assert answer.elapsed.total_seconds() < 2
    answer = library.person.get(f"{library.chat}/messages/search", params={"q": "x" * 1001})
    assert answer.status_code == 422
    assert "q " in answer.json()["errors"][0]
    assert library.person.get(f"{library.chat}/messages/search?q=%ff").status_code in (200, 422)


def test_only_this_chat_and_only_members(searched: Served) -> None:
    with closing(Person(searched.url)) as ann, closing(Person(searched.url)) as eve:
        token = ann.application()
        one, other = ann.chat(token), ann.chat(token)
        number = post(ann, one, "xylophone in one")
        post(ann, other, "xylophone in the other")
        eventually(lambda: bool(search(ann, one, "xylophone")) and bool(search(ann, other, "xylophone")))
        assert [each["messageNumber"] for each in search(ann, one, "xylophone")] == [number]
        assert eve.get(f"{one}/messages/search", params={"q": "xylophone"}).status_code == 404
        assert httpx.get(f"{searched.url}/api/v1{one}/messages/search?q=xylophone").status_code == 401
        missing = ann.get(f"/applications/{token}/chats/99/messages/search", params={"q": "x"})
        assert missing.status_code == 404


def test_edits_and_deletes_are_followed(searched: Served) -> None:
    with closing(Person(searched.url)) as ann:
        chat = ann.chat()
        number, gone = post(ann, chat, "marmalade sandwich"), post(ann, chat, "marmalade jar")
        eventually(lambda: len(search(ann, chat, "marmalade")) == 2)
        assert ann.delete(f"{chat}/messages/{gone}").status_code == 204
        assert [each["messageNumber"] for each in search(ann, chat, "marmalade")] == [number]  # at once
        assert ann.patch(f"{chat}/messages/{number}", json={"body": "cucumber sandwich"}).status_code == 200
        assert search(ann, chat, "marmalade") == []  # at once
        eventually(lambda: bool(search(ann, chat, "cucumber")))
        assert search(ann, chat, "sandwich")[0]["body"] == "cucumber sandwich"
        assert search(ann, chat, "sandwich")[0]["editedAt"]


def test_a_new_message_of_a_small_chat_is_found_at_once(embedded: Service) -> None:
    with closing(Person(embedded.url)) as ann:
        chat = ann.chat()
        for number in range(1, 50):
            assert post(ann, chat, f"armadillo {number}") == number
            assert len(search(ann, chat, "armadillo", limit=100)) == number
            assert search(ann, chat, f"armadilo {number}")[0]["messageNumber"] == number


def test_all_is_found_while_a_chat_joins_the_index_and_afterwards(embedded: Service) -> None:
    with closing(Person(embedded.url)) as ann:
        chat = ann.chat()
        first = post(ann, chat, "aardvark at the beginning")
        grow(ann, chat)
        last = post(ann, chat, "aardvark at the end")
        for _ in range(200):
            assert [each["messageNumber"] for each in search(ann, chat, "aardvark")] == [last, first]
            if is_indexed(embedded.data, chat):
                break
        eventually(lambda: is_indexed(embedded.data, chat))
        assert [each["messageNumber"] for each in search(ann, chat, "aardvark")] == [last, first]


@pytest.mark.parametrize("large", [False, True])
def test_the_index_catches_up_after_a_kill(own_service: Service, large: bool) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        cookies = dict(ann.cookies)
        if large:
            grow(ann, chat)
        for number in range(300):
            post(ann, chat, f"salamander {number}")
    own_service.kill()
    own_service.start()
    if large:
        eventually(lambda: is_indexed(own_service.data, chat))
    with httpx.Client(base_url=own_service.url + "/api/v1", cookies=cookies) as again:
        found = lambda: len(again.get(f"{chat}/messages/search", params={"q": "salamander", "limit": 100}).json())  # noqa: E731
        eventually(lambda: found() == 100)
        assert again.get(f"{chat}/messages/search", params={"q": "salamander 0"}).json()[0]["body"] == "salamander 0"


def test_the_index_is_rebuilt_while_serving(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        grow(ann, chat)
        number = post(ann, chat, "tangerine")
        eventually(lambda: is_indexed(own_service.data, chat))
        before = sorted(own_service.data.glob("search-*.db"))
        asked = subprocess.run(
            [sys.executable, "-m", "hubbub", "search", "rebuild", "--data", str(own_service.data)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        eventually(lambda: sorted(own_service.data.glob("search-*.db")) not in ([], before))
        eventually(lambda: len(list(own_service.data.glob("search-*.db"))) == 1)
        assert [each["messageNumber"] for each in search(ann, chat, "tangerine")] == [number]
        post(ann, chat, "tangerine again")
        eventually(lambda: len(search(ann, chat, "tangerine")) == 2)


def test_a_lost_or_damaged_index_is_rebuilt_at_the_start(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        grow(ann, chat)
        post(ann, chat, "clementine")
        cookies = dict(ann.cookies)
    for harm in (lambda file: file.unlink(), lambda file: file.write_bytes(b"no database" * 1000)):
        own_service.stop()
        for file in own_service.data.glob("search-*"):
            harm(file)
        own_service.start()
        with httpx.Client(base_url=own_service.url + "/api/v1", cookies=cookies) as again:
            path = f"{chat}/messages/search?q=clementine"
            eventually(lambda: (again.get(path).status_code, again.get(path).text.count("clementine")) == (200, 1))  # noqa: B023


def test_rebuilding_needs_a_data_folder(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "hubbub", "search", "rebuild", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 1
    assert "no data folder" in asked.stderr
