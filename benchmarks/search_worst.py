"""The CPU time that ordinary and the worst searches take in the service, and how long posts wait meanwhile.

    PYTHONPATH=src:. python -m benchmarks.search_worst [--worst-of 16]

HUBBUB_SOURCE can name the src of another build for the service, so two builds can be compared in turns. One chat has
two thousand messages of 76 characters, another a thousand of ten thousand characters. The CPU time is that of all
threads.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
import httpx
from benchmarks.search import Vocabulary
from tests.large import SEARCHED
from tests.worst import QUERIES

from hubbub.chat.commands import AddChat, PostMessage
from hubbub.chat.model import ChatKey
from hubbub.embedded.store import SqliteStore
from hubbub.loadtest.process import Part
from hubbub.loadtest.usage import Meter


def started(data: Path) -> Part:
    """Start a service of the measured build on this folder."""
    source = os.environ.get("HUBBUB_SOURCE")
    service = Part(
        ["serve", "--port", "0", "--data", str(data)], {"PYTHONPATH": source} if source else {}, data.parent / "log"
    )
    service.start()
    return service


def cpu_of(service: Part) -> float:
    """Wait until the service is idle, and return the CPU seconds of all its processes."""
    meter = Meter(service.pid)
    before = -1.0
    while True:
        now = meter.cpu_s()
        if now - before < 0.05:
            return now
        before = now
        time.sleep(0.5)


@contextmanager
def posting(client: httpx.Client, path: str) -> Iterator[list[float]]:
    """Post one message after another on a thread, and yield the list of the milliseconds of each."""
    took: list[float] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            begun = time.perf_counter()
            client.post(path, json={"body": "meanwhile"}).raise_for_status()
            took.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.005)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def fill(data: Path, token: str, rng: random.Random) -> list[str]:
    """Fill the chats 2 and 3 (chat 1 is for posts), and return ordinary queries."""
    vocabulary = Vocabulary(rng)
    texts = vocabulary.texts(rng, 2000)
    long = [SEARCHED[at % 2] for at in range(1000)]
    store = SqliteStore(data / "hubbub.db")
    store.apply([AddChat(token, None, 1), AddChat(token, None, 1)])
    for chat, bodies in ((2, texts), (3, long)):
        store.apply(
            [PostMessage(ChatKey(token, chat), at, 1, "ref", "A", body, 1) for at, body in enumerate(bodies, 1)]
        )
    store.close()
    return vocabulary.queries(rng, 210)


@click.command()
@click.option("--worst-of", default=16, help="The number of worst searches at once.")
def main(worst_of: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        service = started(data)
        client = httpx.Client(base_url=service.url + "/api/v1", timeout=300)
        person = {"name": "A", "email": "a@example.com", "password": "secret1"}
        client.post("/auth/register", json=person)
        token = client.post("/applications", json={"name": "Big"}).json()["token"]
        client.post(f"/applications/{token}/chats")
        service.stop()
        queries = fill(data, token, random.Random(1))
        service = started(data)
        client = httpx.Client(base_url=service.url + "/api/v1", timeout=300, cookies=client.cookies)
        chats = f"/applications/{token}/chats"
        begun = cpu_of(service)
        found = 0
        for q in queries:
            answer = client.get(f"{chats}/2/messages/search", params={"q": q}).raise_for_status()
            found += len(answer.json())
        spent = cpu_of(service) - begun
        click.echo(f"ordinary: {spent / len(queries) * 1000:.1f} ms of CPU a query, {found} found")
        for kind, q in QUERIES.items():
            begun = cpu_of(service)
            answer = client.get(f"{chats}/3/messages/search", params={"q": q})
            cost = cpu_of(service) - begun
            click.echo(
                f"{kind}: {cost:.2f} s of CPU, {answer.status_code} {answer.headers.get('hubbub-truncated', '')}"
            )
        posts, worst = f"{chats}/1/messages", (client, f"{chats}/3/messages/search", QUERIES["a typo in every word"])
        with posting(client, posts) as before:
            time.sleep(2)
        with posting(client, posts) as took:
            crowd = [threading.Thread(target=_search, args=worst) for _ in range(worst_of)]
            for each in crowd:
                each.start()
            for each in crowd:
                each.join()
        click.echo(
            f"posts {median(before):.1f} ms; with {worst_of} of the worst {median(took):.1f}, at most {max(took):.0f}"
        )
        service.stop()


def _search(client: httpx.Client, path: str, q: str) -> None:
    client.get(path, params={"q": q})


if __name__ == "__main__":
    main()
