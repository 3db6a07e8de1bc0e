"""How fast one writer and three writers drain a backlog: .venv/bin/python benchmarks/writers.py [--messages 400000]"""

from __future__ import annotations

import argparse
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pymysql
from pymysql.cursors import Cursor

from hubbub.chat.model import ChatKey
from hubbub.chat.user_bytes import SERVICE
from hubbub.cluster.protocol import Post
from hubbub.cluster.publisher import Publisher
from hubbub.loadtest.cluster import ClusterStack

CHATS = 100


async def fill(url: str, tokens: list[str], messages: int) -> None:
    queue = Publisher(url, 4)
    assert await queue.connected(20)
    text = "A message of the performance test, about as long as people write."
    for start in range(0, messages, 5000):
        tickets = [
            queue.send(
                Post(ChatKey(tokens[n % CHATS], 1), n // CHATS + 1, 1, "A", text, 1),
                queue.hold(tokens[n % CHATS], len(text), SERVICE),
            )
            for n in range(start, min(start + 5000, messages))
        ]
        for ticket in tickets:
            await ticket
    await queue.close()


def cpu(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


def stored_messages(cursor: Cursor) -> int:
    cursor.execute("SELECT COUNT(*) FROM messages")
    ((count,),) = cursor.fetchall()
    return int(count)


def drain(writers: int, messages: int) -> None:
    with ClusterStack(apis=1, writers=writers) as stack:
        for writer in stack.writers:
            writer.stop()
        connection = pymysql.connect(
            host="127.0.0.1", port=stack.mariadb.port, user="hubbub", password=stack.mariadb.password, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute("USE hubbub")
            tokens = [f"token{n}" for n in range(CHATS)]
            for token in tokens:
                cursor.execute("INSERT INTO chats (token, number, created_at) VALUES (%s, 1, 1)", (token,))
            asyncio.run(fill(stack.rabbitmq.url, tokens, messages))
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda writer: writer.start(), stack.writers))
            begun = stored_messages(cursor)
            pids = [writer.pid for writer in stack.writers]
            start, before, database = time.monotonic(), cpu(pids), cpu([stack.mariadb.pid])
            stored = begun
            while stored < messages:
                time.sleep(0.1)
                stored = stored_messages(cursor)
            seconds = time.monotonic() - start
            drained = messages - begun
            print(
                f"{writers} writers: {drained} messages in {seconds:.1f} s, {drained / seconds:.0f}/s;"
                f" writers {(cpu(pids) - before) / seconds:.2f} cores,"
                f" MariaDB {(cpu([stack.mariadb.pid]) - database) / seconds:.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=400_000)
    messages = parser.parse_args().messages
    for writers in (1, 3, 1, 3):
        drain(writers, messages)


if __name__ == "__main__":
    main()
