"""How long after its acknowledgement a message reaches each of many listeners to one chat.

    python -m benchmarks.listeners [--listeners 1000] [--messages 100] [--rate 10]

There is one embedded service. The listeners and the writer are in this process, on the other core.
"""

from __future__ import annotations

import asyncio
import re
import time
from statistics import median, quantiles

import click
import httpx

from hubbub.loadtest.stack import EmbeddedStack

_NUMBER = re.compile(rb'data: {"messageNumber":(\d+)')


async def listen(host: str, port: int, path: str, cookie: str, received: dict[int, list[float]]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path}/messages/stream HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
    try:
        while line := await reader.readline():
            found = _NUMBER.match(line)
            if found:
                received.setdefault(int(found[1]), []).append(time.monotonic())
    finally:
        writer.close()


async def run(url: str, listeners: int, messages: int, rate: float) -> tuple[list[float], int]:
    delays: list[float] = []
    received: dict[int, list[float]] = {}
    async with httpx.AsyncClient(base_url=url + "/api/v1") as client:
        person = {"name": "A", "email": "a@example.com", "password": "a password"}
        (await client.post("/auth/register", json=person)).raise_for_status()
        token = (await client.post("/applications", json={"name": "A"})).json()["token"]
        number = (await client.post(f"/applications/{token}/chats")).json()["chatNumber"]
        path = f"/applications/{token}/chats/{number}"
        cookie = f"auth_token={client.cookies['auth_token']}"
        host, _, port = url.removeprefix("http://").partition(":")
        tasks = [
            asyncio.create_task(listen(host, int(port), "/api/v1" + path, cookie, received)) for _ in range(listeners)
        ]
        await asyncio.sleep(3)
        acknowledged: dict[int, float] = {}
        for _ in range(messages):
            answer = await client.post(f"{path}/messages", json={"body": "A message of some length, as people write."})
            acknowledged[answer.json()["messageNumber"]] = time.monotonic()
            await asyncio.sleep(1 / rate)
        await asyncio.sleep(2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for number, at in acknowledged.items():
        delays += [max(each - at, 0) * 1000 for each in received.get(number, [])]
    return delays, messages * listeners


@click.command()
@click.option("--listeners", default=1000, show_default=True)
@click.option("--messages", default=100, show_default=True)
@click.option("--rate", default=10.0, show_default=True, help="Messages a second.")
def main(listeners: int, messages: int, rate: float) -> None:
    with EmbeddedStack({"HUBBUB_USER_STREAMS": str(listeners)}) as stack:
        delays, wanted = asyncio.run(run(stack.url, listeners, messages, rate))
    cuts = quantiles(delays, n=100)
    click.echo(
        f"{len(delays)} of {wanted} arrived; after the acknowledgement: P50 {median(delays):.1f} ms, "
        f"P95 {cuts[94]:.1f} ms, P99 {cuts[98]:.1f} ms, max {max(delays):.1f} ms"
    )


if __name__ == "__main__":
    main()
