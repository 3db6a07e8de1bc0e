"""The loss of a search server or an indexer delays search and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest

from hubbub.loadtest.cluster import ClusterStack
from hubbub.loadtest.servers import SearchServer
from tests.conftest import Person, eventually


@pytest.fixture
def opensearch(cluster: ClusterStack) -> SearchServer:
    if cluster.search is None:
        pytest.skip("not installed: opensearch. With Maven: scripts/install-search.sh")
    return cluster.search


def found(person: Person, chat: str, q: str) -> list[Any]:
    """Return the search's result, or nothing while search is impossible."""
    answer = person.get(f"{chat}/messages/search", params={"q": q, "limit": 100})
    return answer.json() if answer.status_code == 200 else []


def post(person: Person, chat: str, body: str) -> None:
    answer = person.post(f"{chat}/messages", json={"body": body})
    assert answer.status_code == 200, answer.text


def test_writes_continue_without_the_search_server_and_it_catches_up(
    cluster: ClusterStack, opensearch: SearchServer
) -> None:
    with closing(Person(cluster.url)) as ann:
        chat = ann.chat()
        post(ann, chat, "pelican before")
        eventually(lambda: len(found(ann, chat, "pelican")) == 1, within_s=30)
        opensearch.kill()
        for number in range(30):
            post(ann, chat, f"pelican {number} meanwhile")
        answer = ann.get(f"{chat}/messages/search", params={"q": "pelican"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "search server" in answer.json()["error"]
        assert ann.get(f"{chat}/messages").json()[0]["body"] == "pelican 29 meanwhile"
        opensearch.start()
        eventually(lambda: len(found(ann, chat, "pelican")) == 31, within_s=10)


def test_search_catches_up_with_the_next_indexer(cluster: ClusterStack, opensearch: SearchServer) -> None:
    with closing(Person(cluster.url)) as ann:
        chat = ann.chat()
        post(ann, chat, "heron first")
        for writer in cluster.writers:
            writer.kill()
        for number in range(20):
            post(ann, chat, f"heron {number}")
        for writer in cluster.writers:
            writer.start()
        eventually(lambda: len(found(ann, chat, "heron")) == 21, within_s=30)


def test_a_rebuild_while_serving(cluster: ClusterStack, opensearch: SearchServer) -> None:
    with closing(Person(cluster.url)) as ann:
        chat = ann.chat()
        for number in range(50):
            post(ann, chat, f"cormorant {number}")
        eventually(lambda: len(found(ann, chat, "cormorant")) == 50, within_s=30)
        with subprocess.Popen(
            [sys.executable, "-m", "hubbub", "search", "rebuild"],
            env=os.environ | cluster.settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as rebuilding:
            number = 50
            while rebuilding.poll() is None:
                assert len(found(ann, chat, "cormorant 1")) >= 1
                post(ann, chat, f"cormorant {number}")
                number += 1
            assert rebuilding.returncode == 0
            assert rebuilding.stdout is not None
            assert "was rebuilt" in rebuilding.stdout.read()
        eventually(lambda: len(found(ann, chat, "cormorant")) == min(number, 100), within_s=10)
