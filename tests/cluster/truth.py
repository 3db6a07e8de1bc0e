"""Read a cluster's database after everything that could hide a loss was removed."""

from __future__ import annotations

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pymysql

from hubbub.cluster.broker import send_markers
from hubbub.loadtest.cluster import ClusterStack

_DRAINED_S = 60.0


def rows(
    stack: ClusterStack, sql: str, parameters: tuple[Any, ...] = (), *, commit: bool = False
) -> list[tuple[Any, ...]]:
    """Run a statement over a connection of the test's own, and return the rows."""
    connection = pymysql.connect(
        host="127.0.0.1", port=stack.mariadb.port, user="hubbub", password=stack.mariadb.password, database="hubbub"
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            if commit:
                connection.commit()
            return list(cursor.fetchall())
    finally:
        connection.close()


def bare(stack: ClusterStack) -> None:
    """Empty Redis, restart every process of ours, and wait until nothing is queued. Whatever was acknowledged and is
    not in the database afterwards is lost.
    """
    parts = (*stack.writers, *stack.apis)
    for part in parts:
        part.kill()
    stack.redis.command("FLUSHALL")
    with ThreadPoolExecutor(len(parts)) as starting:
        list(starting.map(lambda part: part.start(), parts))
    drained(stack)


def drained(stack: ClusterStack) -> None:
    """Wait until everything that is queued now is applied: send a marker behind it, and wait until the database has it.

    The broker's own count of a queue lags, and may be 0 while deliveries are there.
    """
    shards = int(rows(stack, "SELECT value FROM kept WHERE name = 'shards'")[0][0])
    marker = f"test.{secrets.token_hex(8)}"
    asyncio.run(send_markers(stack.rabbitmq.url, shards, marker))
    until = time.monotonic() + _DRAINED_S
    reached = 0
    while reached < shards:
        assert time.monotonic() < until, f"{shards - reached} of {shards} shards do not get on"
        time.sleep(0.1)
        ((reached,),) = rows(stack, "SELECT COUNT(*) FROM publishers WHERE publisher = %s", (marker,))


def stored(stack: ClusterStack, chat: str) -> list[tuple[int, str]]:
    """Return the number and the text of each message of the chat with this path, in order."""
    _, _, token, _, number = chat.split("/")
    found = rows(
        stack, "SELECT number, body FROM messages WHERE token = %s AND chat = %s ORDER BY number", (token, int(number))
    )
    return [(number, body) for number, body in found]
