"""Make the data for the upgrade tests, from a checkout of the version to upgrade from:

    git worktree add --detach /tmp/v010 356b090
    python -m tests.upgrade.make_data /tmp/v010

It runs that version's `hubbub serve`, and its `hubbub api` and `hubbub writer` over real servers, and stops each in the
middle of its work. It writes into tests/upgrade/data:

- embedded.tar.xz: the data folder of a service that was killed; half of the writes are only in its write-ahead log
- cluster.sql, queued.json: the database of a cluster, and what was in its queues, while no writer ran
- embedded.json, cluster.json: the answers that the clients got
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import aio_pika
import msgspec
import pymysql

from hubbub.loadtest.cluster import ClusterStack
from tests.upgrade.record import DATA, Client, Place, Record

NOBODY = "http://127.0.0.1:9"  # there is no search server, so changes stay noted for the index
_SOON_S = 60.0
_SHARDS = 4


def people(record: Record, urls: list[str]) -> tuple[Client, Client, Client]:
    ann, bob, eve = (Client(record, urls, f"{name}@example.com") for name in ("ann", "bob", "eve"))
    ann.register("Ann", "correct horse battery")
    bob.register("Bob Ünal", "pässwörd of bob 🎉")
    eve.register("Eve", "eve's own secret")
    return ann, bob, eve


# One process ----------------------------------------------------------------------------------------------------------


@contextmanager
def served(checkout: Path, data: Path, end: signal.Signals) -> Iterator[str]:
    command = [sys.executable, "-m", "hubbub", "serve", "--port", "0", "--data", str(data)]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"https?://\S+", process.stdout.readline())
        assert found, "it did not start"
        try:
            yield found[0]
        finally:
            process.send_signal(end)


def make_embedded(checkout: Path) -> None:
    record = Record()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with served(checkout, data, signal.SIGTERM) as url:
            ann, bob, eve = people(record, [url])
            ours = ann.application("Ours")
            ann.admit(ours, bob.email, "admin")
            ann.admit(ours, eve.email, "member")
            general, untitled = ann.chat(ours, "General"), ann.chat(ours)
            for turn in range(20):
                (ann, bob, eve)[turn % 3].post(general, f"message {turn} to all 🎉")
            keyed = ann.post(untitled, "once only", key="key-1")
            ann.post(untitled, "a long one: " + "0123456789" * 998)
            bob.edit(general, 2, "edited before the restart")
            eve.delete(general, 3)
        with served(checkout, data, signal.SIGKILL) as url:
            ann, bob, eve = (Client(record, [url], each.email) for each in (ann, bob, eve))
            for client in (ann, bob, eve):
                client.login()
            quiet = bob.chat(ours, "Quiet")
            theirs = eve.chat(eve.application("Theirs"), "Theirs")
            for turn in range(15):
                (ann, bob, eve)[turn % 3].post(general, f"message {turn} in the log alone")
            ann.edit(general, 1, "edited in the log alone")
            ann.edit(general, 4, "edited once")
            ann.edit(general, 4, "edited twice")
            bob.delete(general, 6)  # Eve's
            last = bob.post(general, "the last, deleted at once")
            bob.delete(general, last)
            assert ann.post(untitled, "once only", key="key-1") == keyed
            gone = bob.post(untitled, "deleted, and its key stays", key="key-2")
            bob.delete(untitled, gone)
            eve.post(theirs, "kept with a key", key="key-1")
            ann.post(quiet, "one\r\nof <two> lines")
        with tarfile.open(DATA / "embedded.tar.xz", "w:xz") as tar:
            tar.add(data, "data", filter=nobodys)
    record.save(DATA / "embedded.json")


def nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


# A cluster ------------------------------------------------------------------------------------------------------------


def until_stored(stack: ClusterStack, record: Record) -> None:
    """Wait until the database has everything that was acknowledged."""
    wanted = {
        (*place, number): message.body for place in record.titles for number, message in record.there(place).items()
    }
    until = time.monotonic() + _SOON_S
    while stored_messages(stack) != wanted:
        assert time.monotonic() < until, "the writer does not come to an end"
        time.sleep(0.2)


def stored_messages(stack: ClusterStack) -> dict[tuple[str, int, int], str]:
    with pymysql.connect(
        host="127.0.0.1", port=stack.mariadb.port, user="hubbub", password=stack.mariadb.password, database="hubbub"
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT token, chat, number, body FROM messages")
            return {row[:3]: row[3] for row in cursor.fetchall()}


def queued_messages(stack: ClusterStack) -> dict[str, list[dict[str, Any]]]:
    """Return the content of each queue, from its head, and leave it there."""

    async def look() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        connection = await aio_pika.connect(stack.rabbitmq.url)
        async with connection:
            for name in [*(shard_queue(shard) for shard in range(_SHARDS)), "hubbub.dead"]:
                channel = await connection.channel()
                queue = await channel.declare_queue(name, passive=True)
                arrived: asyncio.Queue[Any] = asyncio.Queue()
                await queue.consume(arrived.put)
                messages = [
                    await asyncio.wait_for(arrived.get(), 30)
                    for _ in range(queue.declaration_result.message_count or 0)
                ]
                found[name] = [
                    {
                        "body": base64.b64encode(message.body).decode(),
                        **({"type": message.type} if message.type else {}),
                        **({"headers": headers} if (headers := sent_headers(message.headers)) else {}),
                    }
                    for message in messages
                ]
                await channel.close()
        return found

    return asyncio.run(look())


def sent_headers(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the headers that the sender set."""
    return {name: value for name, value in headers.items() if not name.startswith("x-")}


def send_raw(stack: ClusterStack, queue: str, *bodies: bytes) -> None:
    async def send() -> None:
        connection = await aio_pika.connect(stack.rabbitmq.url)
        async with connection:
            channel = await connection.channel()
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, queue)

    asyncio.run(send())


def dump(stack: ClusterStack) -> str:
    """Dump the database, without the names of the machine and of database users."""
    options = [
        "--single-transaction",
        "--skip-comments",
        "--skip-dump-date",
        "--no-tablespaces",
        "--hex-blob",
        "--skip-extended-insert",
    ]
    server = ["--no-defaults", "-h", "127.0.0.1", "-P", str(stack.mariadb.port), "-u", "hubbub"]
    environment = os.environ | {"MYSQL_PWD": stack.mariadb.password}
    command = ["mariadb-dump", *server, *options, "hubbub"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("/*M!999999"))


def shard_queue(shard: int) -> str:
    return f"hubbub.shard.{shard}"


def dead_letters(stack: ClusterStack, place: Place) -> None:
    """Send two commands that no writer can store."""
    queue = shard_queue(crc32(place.token.encode()) % _SHARDS)
    again = ["PostMessage", [*place], 1, 1, "Ann", "a number that is taken", 1]
    send_raw(stack, queue, b"not ours", msgspec.msgpack.encode(["elsewhere", 1, [again]]))


def make_cluster(checkout: Path) -> None:
    record = Record()
    settings = {"PYTHONPATH": str(checkout / "src"), "HUBBUB_SEARCH_URL": NOBODY}
    with ClusterStack(apis=2, writers=1, search=None, settings=settings) as stack:
        writer = stack.writers[0]
        ann, bob, eve = people(record, [api.url for api in stack.apis])
        ours, theirs = ann.application("Ours"), eve.application("Theirs")
        others = [bob.application(f"Others {number}") for number in range(4)]  # so that several shards have messages
        ann.admit(ours, bob.email, "admin")
        ann.admit(ours, eve.email, "member")
        general, untitled = ann.chat(ours, "General"), ann.chat(ours)
        alone = eve.chat(theirs, "Theirs")
        elsewhere = [bob.chat(token) for token in others]

        # Stored, and acknowledged to the queue.
        for turn in range(20):
            (ann, bob, eve)[turn % 3].post(general, f"stored {turn} 🎉")
        for place in elsewhere:
            bob.post(place, "stored elsewhere")
        keyed = ann.post(untitled, "once only", key="key-1")
        eve.post(alone, "stored with a key", key="key-1")
        bob.edit(general, 2, "edited and stored")
        eve.delete(general, 3)
        until_stored(stack, record)

        # Stored, and not acknowledged to the queue, as a writer leaves them that is killed between the two.
        writer.stop()
        for turn in range(3):
            bob.post(general, f"stored, and queued still {turn}")
        ann.edit(general, 1, "edited, stored, and queued still")
        redelivered = queued_messages(stack)
        dead_letters(stack, general)
        writer.start()
        until_stored(stack, record)
        writer.stop()
        assert not any(messages for name, messages in queued_messages(stack).items() if name != "hubbub.dead")

        # Queued, and not stored.
        for turn in range(12):
            (ann, bob, eve)[turn % 3].post(general, f"queued {turn}")
        for place in elsewhere:
            bob.edit(place, bob.post(place, "queued elsewhere"), "queued elsewhere, edited")
        with ThreadPoolExecutor(12) as pool:  # they are sent together in few deliveries
            for _ in pool.map(lambda n: bob.post(elsewhere[0], f"queued with others {n}"), range(40)):
                pass
        ann.post(untitled, "a long one: " + "0123456789" * 998)
        ann.edit(general, 4, "stored, edited once in the queue")
        ann.edit(general, 4, "stored, edited twice in the queue")
        bob.delete(general, 6)  # Eve's, stored
        twice = ann.post(general, "queued, to be edited")
        ann.edit(general, twice, "queued, edited once")
        ann.edit(general, twice, "queued, edited twice")
        gone = eve.post(general, "queued, to be edited and deleted")
        eve.edit(general, gone, "queued, edited, to be deleted")
        bob.delete(general, gone)
        assert ann.post(untitled, "once only", key="key-1") == keyed
        queued = bob.post(untitled, "queued with a key", key="key-2")
        assert bob.post(untitled, "queued with a key", key="key-2") == queued
        bob.edit(untitled, queued, "queued with a key, edited")
        deleted = eve.post(untitled, "queued with a key, deleted", key="key-3")
        eve.delete(untitled, deleted)
        new = ann.chat(ours, "Made while no writer ran")
        bob.delete(new, bob.post(new, "the first and the last, deleted"))

        # A chat that is being opened again, which needs a writer.
        stack.redis.command("FLUSHALL")
        eve.ask("POST", f"{alone.path}/messages", 503, {"body": "never acknowledged"})
        for api in stack.apis:
            api.stop()
        (DATA / "cluster.sql").write_text(dump(stack))
        found = queued_messages(stack)
    assert len(found["hubbub.dead"]) == 2
    for name, messages in redelivered.items():
        if name != "hubbub.dead":
            found[name] = messages + found[name]
    (DATA / "queued.json").write_text(json.dumps(found, indent=1) + "\n")
    record.save(DATA / "cluster.json")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    checkout = Path(sys.argv[1]).resolve()
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    make_embedded(checkout)
    make_cluster(checkout)


if __name__ == "__main__":
    main()
