"""Search in a cluster with OpenSearch, in a million messages in one chat and in ten thousand.

    python -m benchmarks.search_cluster [--messages 1000000] [--chats 10000]

It fills MySQL without HTTP, builds the index with `hubbub search rebuild` while the cluster serves, and searches. Then
it kills the search server with -9 during writes, and waits until what was written meanwhile is found.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

import click
import httpx
from benchmarks.search import Vocabulary, batches, measure

from hubbub.chat.commands import AddChat
from hubbub.cluster.database import Database
from hubbub.cluster.deliveries import Deliveries
from hubbub.cluster.protocol import Delivery, Post, Queued
from hubbub.cluster.store import MySqlStore
from hubbub.loadtest.cluster import ClusterStack


def until_found(client: httpx.Client, path: str, word: str, within_s: float = 120) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        answer = client.get(f"{path}/search", params={"q": word})
        if answer.status_code == 200 and answer.json():
            return time.monotonic() - begun
        time.sleep(0.05)
    raise AssertionError(f"{word} was not found within {within_s} s")


@click.command()
@click.option("--messages", default=1_000_000)
@click.option("--chats", default=10_000)
def main(messages: int, chats: int) -> None:
    rng = random.Random(1)
    vocabulary = Vocabulary(rng)
    with ClusterStack(apis=1, writers=1) as stack:
        assert stack.search is not None, "OpenSearch is not installed: scripts/install-search.sh opensearch"
        client = httpx.Client(base_url=stack.url + "/api/v1", timeout=60)
        client.post("/auth/register", json={"name": "A", "email": "a@example.com", "password": "secret1"})
        token = client.post("/applications", json={"name": "Big"}).json()["token"]
        client.post(f"/applications/{token}/chats")
        begun = time.monotonic()
        database = Database(stack.settings["HUBBUB_MYSQL_URL"], pool_size=1)
        store = MySqlStore(database)
        deliveries = Deliveries(database, store.uncounted, note_changes=False)
        for sequence, batch in enumerate(batches(token, vocabulary.texts(rng, 50_000), chats, messages, rng), 1):
            posts: list[Queued] = []
            for each in batch:
                if isinstance(each, AddChat):
                    store.apply([each])
                else:
                    fields = each.number, each.sender_id, each.sender_name, each.body, each.created_at
                    posts.append(Post(each.chat, *fields, sender_ref=each.sender_ref))
            deliveries.apply(0, 4, [Delivery("benchmark", sequence, posts, sequence - 1)])
        database.close()
        stack.redis.command("FLUSHALL")  # Redis saw chat 1 being made, and would say that it has no messages
        click.echo(f"filled with {messages} messages in {time.monotonic() - begun:.0f} s")
        begun = time.monotonic()
        rebuild = [sys.executable, "-m", "hubbub", "search", "rebuild"]
        subprocess.run(rebuild, env=os.environ | stack.settings, check=True, stderr=subprocess.DEVNULL)
        click.echo(f"rebuilt in {time.monotonic() - begun:.1f} s")
        queries = vocabulary.queries(rng, 300)
        for name, chat in (("one chat of half of them", 1), ("a small chat", 77)):
            click.echo(f"{name:<28}{measure(client, token, chat, queries)}")
        path = f"/applications/{token}/chats/2/messages"
        client.post(path, json={"body": "beforethefault"})
        click.echo(f"a new message is found after {until_found(client, path, 'beforethefault'):.2f} s")
        stop = threading.Event()
        written = 0

        def write() -> None:
            nonlocal written
            with httpx.Client(base_url=client.base_url, cookies=client.cookies) as writer:
                while not stop.is_set():
                    written += writer.post(path, json={"body": "written meanwhile"}).status_code == 200

        thread = threading.Thread(target=write)
        thread.start()
        stack.search.kill()
        time.sleep(10)
        client.post(path, json={"body": "duringthefault"})
        stack.search.start()
        seconds = until_found(client, path, "duringthefault")
        stop.set()
        thread.join()
        click.echo(f"after kill -9 of OpenSearch for 10 s, {written} writes went on; caught up {seconds:.2f} s after")


if __name__ == "__main__":
    main()
