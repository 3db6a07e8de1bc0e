"""A damaged search index is rebuilt automatically, and only search is affected until then."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Person, Service, eventually
from tests.searching import grow, is_indexed

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


class Filled:
    """A service with a chat that has enough messages for an index of many pages."""

    def __init__(self, folder: Path) -> None:
        self.service = Service(folder / "data")
        self.service.start()
        with closing(Person(self.service.url)) as ann:
            self.chat = fill(ann)
            self.cookies = dict(ann.cookies)
        eventually(lambda: is_indexed(self.service.data, self.chat))

    def eventually_finds_all(self) -> None:
        eventually(lambda: is_whole(self.service) and self._finds_all(), 30)

    def _finds_all(self) -> bool:
        """Return whether every message is found. Until then, an answer may be a 503 that says when to retry."""
        for number in (0, 7, 75, 149):
            answer = self.search(f"walrus{number}")
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                return False
            assert answer.status_code == 200
            if not any(each["body"].startswith(f"walrus{number} ") for each in answer.json()):
                return False
        return True

    def search(self, word: str) -> httpx.Response:
        return httpx.get(f"{self.service.url}/api/v1{self.chat}/messages/search?q={word}", cookies=self.cookies)

    def restart(self, damage: Callable[[Path], None] = lambda _: None) -> None:
        """Stop the service, damage the index's file, and start it."""
        assert self.service.stop() == 0
        damage(index_of(self.service))
        self.service.start()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A service, which each test leaves with a whole index."""
    filled = Filled(tmp_path_factory.mktemp("filled"))
    yield filled
    filled.service.kill()


def index_of(service: Service) -> Path:
    (file,) = service.data.glob("search-*.db")
    return file


def fill(ann: Person) -> str:
    chat = ann.chat()
    grow(ann, chat)
    rng = random.Random(2)
    for number in range(150):
        body = " ".join(f"{rng.randrange(16**6):06x}" for _ in range(100))
        assert ann.post(f"{chat}/messages", json={"body": f"walrus{number} {body}"}).status_code == 200
    return chat


def is_whole(service: Service) -> bool:
    answer = httpx.get(service.url + "/readyz")
    assert answer.status_code == 200, "all but search goes on"
    return bool(answer.json()["parts"]["search"]["status"] == "ok")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_while_it_was_stopped(filled: Filled, damage: Callable[[Path], None]) -> None:
    filled.restart(damage)
    filled.eventually_finds_all()
    eventually(lambda: len(list(filled.service.data.glob("search-*.db"))) == 1)
    assert "Traceback" not in filled.service.log


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_while_it_serves(filled: Filled, damage: Callable[[Path], None]) -> None:
    filled.restart()  # moves what was in the log into the file
    filled.eventually_finds_all()
    damage(index_of(filled.service))
    statuses: list[int] = []
    stop = threading.Event()

    def post() -> None:
        with httpx.Client(base_url=filled.service.url + "/api/v1", cookies=filled.cookies) as client:
            while not stop.is_set():
                statuses.append(client.post(f"{filled.chat}/messages", json={"body": "meanwhile"}).status_code)

    posting = threading.Thread(target=post)
    posting.start()
    try:
        eventually(lambda: len(statuses) > 20)
        filled.eventually_finds_all()
    finally:
        stop.set()
        posting.join()
    assert set(statuses) == {200}
    filled.restart()  # damage in a page that nobody has read is found now
    filled.eventually_finds_all()
    assert "Traceback" not in filled.service.log


def test_an_index_of_other_data_is_not_used(filled: Filled, own_service: Service) -> None:
    """The index of another service has other messages, and its position says that all are indexed."""
    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        grow(ann, chat)
        ann.post(f"{chat}/messages", json={"body": "porcupine"})
        cookies = dict(ann.cookies)
    assert own_service.stop() == 0
    index_of(own_service).unlink()
    filled.restart()  # moves what was in the log into the file
    filled.eventually_finds_all()
    shutil.copy(index_of(filled.service), own_service.data / "search-9.db")
    own_service.start()
    search = f"{own_service.url}/api/v1{chat}/messages/search?q=porcupine"
    found = lambda: httpx.get(search, cookies=cookies).json()  # noqa: E731
    eventually(lambda: isinstance(found(), list) and len(found()) == 1)
