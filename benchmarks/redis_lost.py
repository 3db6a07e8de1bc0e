"""What clients see when a cluster's Redis is killed and comes back empty during writes and reads.

    .venv/bin/python benchmarks/redis_lost.py [--seconds 50] [--clients 16]

There are two API processes and one writer. Each client posts, lists its chat and reads what it posted, in turns. Redis
is killed at half time. The output has how long posts were refused, how many reads did not get a 200, how many answers
said that they lag, and how many acknowledged messages the database lacks after Redis was emptied and every process
restarted.
"""

from __future__ import annotations

import asyncio
import time

import click
import httpx
import pymysql

from hubbub.loadtest.cluster import ClusterStack


class Seen:
    """The answers that the clients got: the ``acknowledged`` messages, and the times of the ``refused`` posts."""

    def __init__(self) -> None:
        self.acknowledged: dict[tuple[str, int], str] = {}
        self.refused: list[float] = []
        self.reads = 0
        self.failed_reads = 0
        self.lagging = 0


async def client(stack: ClusterStack, cookie: str, chat: str, number: int, until: float, seen: Seen) -> None:
    headers = {"cookie": cookie}
    apis = [httpx.AsyncClient(base_url=part.url + "/api/v1", headers=headers, timeout=30) for part in stack.apis]
    turn = 0
    while time.monotonic() < until:
        turn += 1
        writer, reader = apis[turn % 2], apis[(turn + 1) % 2]
        body = f"{number}/{turn}"
        posted = await writer.post(f"{chat}/messages", json={"body": body})
        paths = [f"{chat}/messages", chat.rsplit("/", 1)[0]]
        if posted.status_code == 200:
            number_of_post = posted.json()["messageNumber"]
            seen.acknowledged[chat, number_of_post] = body
            paths.append(f"{chat}/messages/{number_of_post}")
        else:
            seen.refused.append(time.monotonic())
        for path in paths:
            answer = await reader.get(path)
            lags = "hubbub-lag" in answer.headers
            seen.reads += 1
            seen.lagging += lags
            seen.failed_reads += answer.status_code != 200 and not (answer.status_code == 404 and lags)
    for each in apis:
        await each.aclose()


async def load(stack: ClusterStack, cookie: str, chats: list[str], seconds: float) -> tuple[Seen, float]:
    seen = Seen()
    begun = time.monotonic()
    running = [
        asyncio.create_task(client(stack, cookie, chat, number, begun + seconds, seen))
        for number, chat in enumerate(chats)
    ]
    await asyncio.sleep(seconds / 2)
    killed = time.monotonic()
    stack.redis.kill()
    await asyncio.to_thread(stack.redis.start)
    await asyncio.gather(*running)
    return seen, killed


def lost(stack: ClusterStack, seen: Seen) -> int:
    """Return how many acknowledged messages the database lacks, after removing everything that could hide a loss."""
    for part in (*stack.apis, *stack.writers):
        part.kill()
    stack.redis.command("FLUSHALL")
    for part in (*stack.writers, *stack.apis):
        part.start()
    connection = pymysql.connect(
        host="127.0.0.1", port=stack.mariadb.port, user="hubbub", password=stack.mariadb.password, database="hubbub"
    )
    missing, until = len(seen.acknowledged), time.monotonic() + 30
    with connection, connection.cursor() as cursor:
        while missing and time.monotonic() < until:
            connection.rollback()
            cursor.execute("SELECT token, chat, number, body FROM messages")
            stored = {(f"/applications/{row[0]}/chats/{row[1]}", row[2]): row[3] for row in cursor.fetchall()}
            missing = sum(stored.get(place) != body for place, body in seen.acknowledged.items())
            time.sleep(0.5)
    return missing


@click.command()
@click.option("--seconds", default=50.0)
@click.option("--clients", default=16)
def main(seconds: float, clients: int) -> None:
    with ClusterStack(apis=2, writers=1, search=None) as stack:
        with httpx.Client(base_url=stack.url + "/api/v1", timeout=30) as owner:
            owner.post("/auth/register", json={"name": "A", "email": "a@example.com", "password": "secret1"})
            chats = []
            for _ in range(clients):
                token = owner.post("/applications", json={"name": "A"}).json()["token"]
                owner.post(f"/applications/{token}/chats")
                chats.append(f"/applications/{token}/chats/1")
            cookie = f"auth_token={owner.cookies['auth_token']}"
        seen, killed = asyncio.run(load(stack, cookie, chats, seconds))
        last = max(seen.refused, default=killed)
        click.echo(f"posts acknowledged {len(seen.acknowledged)}, refused {len(seen.refused)}")
        click.echo(f"the last refusal came {last - killed:.1f} s after Redis was killed")
        click.echo(f"reads {seen.reads}, not answered 200: {seen.failed_reads}, said that they lag: {seen.lagging}")
        click.echo(f"acknowledged and lost: {lost(stack, seen)}")


if __name__ == "__main__":
    main()
