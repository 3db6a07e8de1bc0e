"""What one user may create in an hour, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Person, Service


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    service.start(
        HUBBUB_USER_APPLICATIONS_PER_HOUR="3", HUBBUB_USER_CHATS_PER_HOUR="4", HUBBUB_USER_MEMBERS_PER_HOUR="5"
    )
    yield service
    service.kill()


def must_be_refused(answer: httpx.Response, limit: int, what: str) -> None:
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 600
    assert answer.headers["ratelimit-limit"] == str(limit)
    assert answer.headers["ratelimit-remaining"] == "0"
    assert f"user_{what}_per_hour" in answer.json()["error"]


def test_one_user_creates_no_more_than_the_hourly_quota(strict: Service) -> None:
    with closing(Person(strict.url)) as ann, closing(Person(strict.url)) as bob:
        token, other, _ = [ann.application() for _ in range(3)]
        must_be_refused(ann.post("/applications", json={"name": "One more"}), 3, "applications")
        assert len(ann.get("/applications").json()) == 3
        chats = [ann.chat(each) for each in (token, other, token, other)]
        must_be_refused(ann.post(f"/applications/{token}/chats"), 4, "chats")
        assert ann.post(f"{chats[0]}/messages", json={"body": "x"}).status_code == 200, "all else goes on"
        # The answer reveals whether an email has an account, so a yes and a no both count.
        for email in (bob.email, "nobody1@example.com", "nobody2@example.com", bob.email, "nobody3@example.com"):
            answer = ann.post(f"/applications/{token}/members", json={"email": email, "role": "member"})
            assert answer.status_code == (201 if email == bob.email else 422)
        for email in (bob.email, "nobody4@example.com"):
            refused = ann.post(f"/applications/{token}/members", json={"email": email, "role": "member"})
            must_be_refused(refused, 5, "members")
        assert bob.chat()
