"""A search index that is damaged is made anew by itself, and nothing but search is affected meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Person, Service, eventually

PAGE = 4096


def header(file: Path) -> None:
    _overwrite(file, 0, 100)


def schema_page(file: Path) -> None:
    _overwrite(file, 100, PAGE - 100)


def middle(file: Path) -> None:
    pages = file.stat().st_size // PAGE
    for page in range(pages // 4, pages * 3 // 4):
        _overwrite(file, page * PAGE, PAGE)


def end(file: Path) -> None:
    _overwrite(file, (file.stat().st_size // PAGE - 1) * PAGE, PAGE)


def _overwrite(file: Path, at: int, size: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(random.Random(1).randbytes(size))


def truncated(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("This is no index.\n" * 3000)


def deleted(file: Path) -> None:
    file.unlink()


DAMAGES = [header, schema_page, middle, end, truncated, empty, text, deleted]


@pytest.fixture
def ann(own_service: Service) -> Iterator[Person]:
    with closing(Person(own_service.url)) as person:
        yield person


def index_of(service: Service) -> Path:
    (file,) = service.data.glob("search-*.db")
    return file


def fill(ann: Person) -> str:
    """A chat with enough messages for an index of many pages."""
    chat = ann.chat()
    rng = random.Random(2)
    for number in range(150):
        body = " ".join(f"{rng.randrange(16**6):06x}" for _ in range(100))
        assert ann.post(f"{chat}/messages", json={"body": f"walrus{number} {body}"}).status_code == 200
    return chat


def finds_all(url: str, ann: Person, chat: str) -> bool:
    """Whether every message is found; until then an answer is 503 and says when to come back."""
    for number in (0, 7, 75, 149):
        answer = httpx.get(f"{url}/api/v1{chat}/messages/search?q=walrus{number}", cookies=dict(ann.cookies))
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
            return False
        assert answer.status_code == 200
        if not any(each["body"].startswith(f"walrus{number} ") for each in answer.json()):
            return False
    return True


def is_whole(service: Service) -> bool:
    answer = httpx.get(service.url + "/readyz")
    assert answer.status_code == 200, "all but search goes on"
    return bool(answer.json()["parts"]["search"]["status"] == "ok")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_while_it_was_stopped(own_service: Service, ann: Person, damage: Callable[[Path], None]) -> None:
    chat = fill(ann)
    eventually(lambda: finds_all(own_service.url, ann, chat))
    assert own_service.stop() == 0
    damage(index_of(own_service))
    own_service.start()
    eventually(lambda: is_whole(own_service) and finds_all(own_service.url, ann, chat), 30)
    eventually(lambda: len(list(own_service.data.glob("search-*.db"))) == 1)
    assert "Traceback" not in own_service.log


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_while_it_serves(own_service: Service, ann: Person, damage: Callable[[Path], None]) -> None:
    chat = fill(ann)
    eventually(lambda: finds_all(own_service.url, ann, chat))
    assert own_service.stop() == 0
    own_service.start()  # what was in the log is in the file now
    ann.base_url = httpx.URL(own_service.url + "/api/v1")
    eventually(lambda: is_whole(own_service) and finds_all(own_service.url, ann, chat))
    damage(index_of(own_service))
    statuses: list[int] = []
    stop = threading.Event()

    def post() -> None:
        with httpx.Client(base_url=own_service.url + "/api/v1", cookies=dict(ann.cookies)) as client:
            while not stop.is_set():
                statuses.append(client.post(f"{chat}/messages", json={"body": "meanwhile"}).status_code)

    posting = threading.Thread(target=post)
    posting.start()
    try:
        eventually(lambda: len(statuses) > 20)
        eventually(lambda: is_whole(own_service) and finds_all(own_service.url, ann, chat), 30)
    finally:
        stop.set()
        posting.join()
    assert set(statuses) == {200}
    # Damage in a page that nobody has read since is found by the next start.
    assert own_service.stop() == 0
    own_service.start()
    eventually(lambda: is_whole(own_service) and finds_all(own_service.url, ann, chat), 30)
    assert "Traceback" not in own_service.log


def test_an_index_of_other_data_is_not_used(own_service: Service, ann: Person, tmp_path: Path) -> None:
    """Another's index says of other messages that they are in it, and of these that they are."""
    other = Service(tmp_path / "other" / "data", log=tmp_path / "other.log")
    other.start()
    with closing(Person(other.url)) as bob:
        chat_there = fill(bob)
        eventually(lambda: finds_all(other.url, bob, chat_there))
    assert other.stop() == 0
    chat = ann.chat()
    ann.post(f"{chat}/messages", json={"body": "porcupine"})
    assert own_service.stop() == 0
    index_of(own_service).unlink()
    index_of(other).rename(own_service.data / "search-9.db")
    own_service.start()
    search = f"{own_service.url}/api/v1{chat}/messages/search?q=porcupine"
    found = lambda: httpx.get(search, cookies=dict(ann.cookies)).json()  # noqa: E731
    eventually(lambda: isinstance(found(), list) and len(found()) == 1)
