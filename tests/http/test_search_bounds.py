"""The most expensive searches, over HTTP, in both modes."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Served, Service, eventually
from tests.large import SEARCHED
from tests.searching import grow, is_indexed
from tests.worst import QUERIES

# The last text is a letter that folds to eighteen.
TEXTS = [*SEARCHED, "\ufdfa" * 9990]


class Full:
    """A chat of a thousand messages of ten thousand characters, all of them indexed."""

    def __init__(self, service: Served) -> None:
        url = service.url
        self._data = service.data if isinstance(service, Service) else None
        self.ann, self.bob = Person(url), Person(url)
        token = self.ann.application()
        self.chat = self.ann.chat(token)
        added = self.ann.post(f"/applications/{token}/members", json={"email": self.bob.email, "role": "member"})
        assert added.status_code == 201, added.text
        asyncio.run(self._fill())
        answer = self.ann.post(f"{self.chat}/messages", json={"body": "the last abc"})
        assert answer.status_code == 200
        eventually(self._finds, within_s=60)

    def _finds(self) -> bool:
        answer = self.ann.get(self.path("the last"))
        joined = self._data is None or is_indexed(self._data, self.chat)  # the searches make it join
        return joined and "the last" in answer.text and "hubbub-truncated" not in answer.headers

    async def _fill(self) -> None:
        cookies, texts = dict(self.ann.cookies), TEXTS
        async with httpx.AsyncClient(base_url=str(self.ann.base_url), cookies=cookies, timeout=60) as many:

            async def post(of: int) -> None:
                for at in range(of, 1000, 10):
                    text = texts[2 if at % 20 == 0 else at % 2]  # texts with the most bytes take the index longest
                    answer = await many.post(f"{self.chat}/messages", json={"body": f"{text} {at}"})
                    assert answer.status_code == 200, answer.text

            await asyncio.gather(*(post(of) for of in range(10)))

    def path(self, q: str) -> str:
        return f"{self.chat}/messages/search?q={quote(q)}"


@pytest.fixture(scope="module")
def full(service: Served) -> Iterator[Full]:
    if isinstance(service, ClusterStack) and service.search is None:
        pytest.skip("not installed: opensearch. With Maven: scripts/install-search.sh")
    full = Full(service)
    with closing(full.ann), closing(full.bob):
        yield full


@pytest.mark.parametrize("q", QUERIES.values(), ids=QUERIES)
def test_the_worst_query_is_answered(full: Full, q: str) -> None:
    answer = full.ann.get(full.path(q))
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("hubbub-truncated") in (None, "true")
    if q in (QUERIES["a typo in every word"], QUERIES["parts of what becomes many"]):
        assert answer.headers["hubbub-truncated"] == "true"
        assert answer.json(), "the best of what was looked at"


def test_a_cheap_search_is_not_truncated(full: Full) -> None:
    answer = full.ann.get(full.path("the last"))
    assert "hubbub-truncated" not in answer.headers
    assert [each["body"] for each in answer.json()] == ["the last abc"]


async def test_fifty_searches_of_one_user_do_not_delay_anothers(full: Full) -> None:
    base = str(full.ann.base_url)
    limits = httpx.Limits(max_connections=100)
    async with (
        httpx.AsyncClient(base_url=base, cookies=dict(full.ann.cookies), timeout=60, limits=limits) as one,
        httpx.AsyncClient(base_url=base, cookies=dict(full.bob.cookies), timeout=60) as another,
    ):
        crowd = [asyncio.ensure_future(one.get(full.path(QUERIES["a typo in every word"]))) for _ in range(50)]
        await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
        found = await another.get(full.path("the last"))
        answers = await asyncio.gather(*crowd)
    assert (found.status_code, len(found.json())) == (200, 1)
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {429}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert full.ann.get(full.path("the last")).json(), "afterwards all is as before"


def test_the_work_ends_when_the_client_leaves(full: Full) -> None:
    """A search whose client left is counted with the status 204, and its places are free again."""

    def left() -> int:
        text = full.ann.get(f"{full.ann.base_url.copy_with(path='/metrics')}").text
        counted = re.findall(r'_seconds_count\{route="searchMessages",status="204"\} (\d+)', text)
        return sum(map(int, counted))

    before, where = left(), urlsplit(str(full.ann.base_url))
    cookie = "; ".join(f"{name}={value}" for name, value in full.ann.cookies.items())
    target = f"/api/v1{full.path(QUERIES['a typo in every word'])}"
    for _ in range(4):
        with socket.create_connection((where.hostname, where.port)) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
    eventually(lambda: left() == before + 4)
    assert full.ann.get(full.path("the last")).status_code == 200


def test_many_deleted_and_edited_messages_hide_no_others(own_service: Service) -> None:
    with closing(Person(own_service.url)) as ann:
        _hidden(ann, own_service.data)


def _hidden(ann: Any, data: Path) -> None:
    """Search for a message that has 1,100 newer ones that were deleted or edited."""
    chat = ann.chat()
    grow(ann, chat)

    def search(q: str) -> list[int]:
        return [each["messageNumber"] for each in ann.get(f"{chat}/messages/search", params={"q": q}).json()]

    real = ann.post(f"{chat}/messages", json={"body": "the real capybara"}).json()["messageNumber"]
    newer = [
        ann.post(f"{chat}/messages", json={"body": f"capybara {at}"}).json()["messageNumber"] for at in range(1100)
    ]
    eventually(lambda: newer[-1] in search(f"capybara {1099}"))
    eventually(lambda: is_indexed(data, chat))
    for number in newer[::2]:
        assert ann.delete(f"{chat}/messages/{number}").status_code == 204
    for number in newer[1::2]:
        assert ann.patch(f"{chat}/messages/{number}", json={"body": "something else"}).status_code == 200
    assert search("capybara") == [real]
    assert search("capybarra") == [real]
    eventually(lambda: bool(search("something else")))
    assert search("capybara") == [real]
