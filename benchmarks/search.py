"""Search in the embedded mode, in a million messages in one chat and in ten thousand, idle and under the standard load.

    python -m benchmarks.search [--messages 1000000] [--chats 10000] [--seconds 20]

It fills a data folder without HTTP and starts a service on it, which builds the index. It searches with one query after
another, and again while `hubbub perftest` loads the service. Then it kills the service with -9 under load and waits
until the index has caught up.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import click
import httpx

from hubbub.chat.commands import AddChat, PostMessage
from hubbub.chat.model import ChatKey
from hubbub.embedded.store import SqliteStore
from hubbub.loadtest.process import Part

_SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "ke",
    "li",
    "mo",
    "nu",
    "pa",
    "re",
    "st",
    "to",
    "vu",
    "er",
    "on",
    "th",
)
_BATCH = 5000


class Vocabulary:
    """Twenty thousand words, some of which are frequent and most rare (Zipf)."""

    def __init__(self, rng: random.Random) -> None:
        self.words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
        self.weights = [1 / (rank + 1) for rank in range(len(self.words))]

    def texts(self, rng: random.Random, count: int) -> list[str]:
        words = iter(rng.choices(self.words, self.weights, k=count * 12))
        return [" ".join(next(words) for _ in range(12)) for _ in range(count)]

    def queries(self, rng: random.Random, count: int) -> list[str]:
        """Return queries of frequent words, rare words, parts, typos, pairs, and words that do not occur."""
        common, rare = self.words[:50], [word for word in self.words[2000:] if len(word) >= 5]
        made = []
        for turn in range(count):
            word, other = rng.choice(rare), rng.choice(common)
            at = rng.randrange(1, len(word) - 1)
            kinds = (
                other,
                word,
                word[1:5],
                word[:at] + "q" + word[at + 1 :],
                f"{word} {other}",
                f"{other} zzzqqq",
                "e",
            )
            made.append(kinds[turn % len(kinds)])
        return made


def batches(
    token: str, texts: list[str], chats: int, messages: int, rng: random.Random
) -> Iterator[list[AddChat] | list[PostMessage]]:
    """Yield the chats except the first, then messages of the first user: half in chat 1, half in random others."""
    for start in range(1, chats, 1000):
        yield [AddChat(token, None, 1) for _ in range(min(1000, chats - start))]
    numbers = [0] * (chats + 1)
    for start in range(0, messages, _BATCH):
        batch = []
        for turn in range(_BATCH):
            chat = 1 if (start + turn) % 2 else rng.randint(2, chats)
            numbers[chat] += 1
            batch.append(PostMessage(ChatKey(token, chat), numbers[chat], 1, "ref", "A", rng.choice(texts), 1))
        yield batch


def measure(client: httpx.Client, token: str, chat: int, queries: list[str]) -> str:
    times, found = [], 0
    for q in queries:
        began = time.perf_counter()
        answer = client.get(f"/applications/{token}/chats/{chat}/messages/search", params={"q": q})
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, answer.text
        found += bool(answer.json())
    cuts = quantiles(times, n=100)
    shown = f"P50 {cuts[49]:6.1f} ms   P95 {cuts[94]:6.1f} ms   max {max(times):6.1f} ms"
    return f"{shown}   {found} of {len(times)} found something"


def made(log: Path, within_s: float = 600) -> str:
    """Wait for what the service logs about building the index, and return it."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        lines = re.findall(r"The search index of \d+ messages was built in [\d.]+ s", log.read_text())
        if lines:
            return str(lines[-1])
        time.sleep(0.2)
    raise AssertionError("the index was not made")


@click.command()
@click.option("--messages", default=1_000_000)
@click.option("--chats", default=10_000)
@click.option("--seconds", default=20)
def main(messages: int, chats: int, seconds: int) -> None:
    rng = random.Random(1)
    vocabulary = Vocabulary(rng)
    with tempfile.TemporaryDirectory() as name:
        data, log = Path(name) / "data", Path(name) / "log"
        service = Part(["serve", "--port", "0", "--data", str(data)], {}, log)
        service.start()
        client = httpx.Client(base_url=service.url + "/api/v1", timeout=60)
        client.post("/auth/register", json={"name": "A", "email": "a@example.com", "password": "secret1"})
        token = client.post("/applications", json={"name": "Big"}).json()["token"]
        client.post(f"/applications/{token}/chats")
        service.stop()
        for file in data.glob("search-*"):
            file.unlink()
        store = SqliteStore(data / "hubbub.db")
        for batch in batches(token, vocabulary.texts(rng, 50_000), chats, messages, rng):
            store.apply(batch)
        store.close()
        service.start()
        print(made(log))
        size = sum(file.stat().st_size for file in data.glob("search-*")) / 1e6
        print(f"index {size:.0f} MB, database {(data / 'hubbub.db').stat().st_size / 1e6:.0f} MB")
        queries = vocabulary.queries(rng, 210)
        print(f"idle, chat of {messages // 2}:        {measure(client, token, 1, queries)}")
        print(f"idle, one of {chats} chats:     {measure(client, token, chats // 2, queries)}")
        load = subprocess.Popen(
            [sys.executable, "-m", "hubbub", "perftest", "--url", service.url, "--keep", "--duration", str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(10)  # its setup and warmup
        print(f"under load, chat of {messages // 2}:  {measure(client, token, 1, queries)}")
        output, _ = load.communicate()
        for line in output.splitlines():
            if re.search(r"Throughput|P95|P99|Failed:|cores", line):
                print("   " + line.strip())
        short_load = subprocess.Popen(
            [sys.executable, "-m", "hubbub", "perftest", "--url", service.url, "--duration", "10"],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(9)
        mine = "/applications/" + token + "/chats/1/messages"
        client.post(mine, json={"body": "unmistakable tyrannosaurus"})
        service.kill()
        short_load.kill()
        short_load.wait()
        service.start()
        began = time.perf_counter()
        while not client.get(mine + "/search", params={"q": "tyrannosaurus"}).json():
            time.sleep(0.05)
        print(f"after kill -9 under load: found again {time.perf_counter() - began:.1f} s after the service was ready")
        service.stop()


if __name__ == "__main__":
    main()
