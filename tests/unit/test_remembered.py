"""What a process of a cluster remembers is bounded."""

from __future__ import annotations

import pytest

from hubbub.chat.model import ChatKey
from hubbub.cluster.redis import pages
from hubbub.cluster.redis.pages import Applications, NewestPage, Pages


def test_past_the_bound_the_application_held_longest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_APPLICATIONS", 3)
    applications = Applications()
    for token in "abc":
        applications.at(token, b"1")
    applications.at("a", b"2")  # a new version takes no more room
    assert [applications.get(token) is not None for token in "abc"] == [True] * 3
    applications.at("d", b"1")
    assert [token for token in "abcd" if applications.get(token) is not None] == ["b", "c", "d"]


def test_past_the_bound_the_page_read_longest_ago_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_BYTES", 3000)
    newest = Pages(10)
    keys = [ChatKey("a", number) for number in range(1, 5)]
    for key in keys[:3]:
        newest.put(key, NewestPage(b"1", 10, [(1, b"x" * 500)]))
    assert newest.get(keys[0], b"1") is not None
    newest.put(keys[3], NewestPage(b"1", 10, [(1, b"x" * 500)]))
    assert [newest.get(key, b"1") is not None for key in keys] == [True, False, True, True]
