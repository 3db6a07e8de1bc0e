"""Clients that post while a service is stopped or killed, and what is there afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.conftest import Service


@contextmanager
def posting(service: Service, chat: str, cookies: dict[str, str]) -> Iterator[list[str]]:
    """Four clients that post until the service is gone, and the texts that were acknowledged. In the block at least a
    hundred are; at its end the clients must have lost the service."""
    acknowledged: list[str] = []
    enough = threading.Semaphore(0)

    def post(sender: int) -> None:
        with httpx.Client(base_url=service.url + "/api/v1", cookies=cookies) as client:
            for number in range(100_000):
                body = f"{sender}/{number}"
                try:
                    answer = client.post(f"{chat}/messages", json={"body": body})
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    acknowledged.append(body)
                    enough.release()

    threads = [threading.Thread(target=post, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        enough.acquire()
    yield acknowledged
    for thread in threads:
        thread.join()


def all_messages(client: httpx.Client, chat: str) -> dict[int, str]:
    """The texts of the chat's messages by their numbers."""
    found: dict[int, str] = {}
    after = 0
    while page := client.get(f"{chat}/messages?after={after}&limit=100").json():
        for message in page:
            assert message["messageNumber"] not in found
            found[message["messageNumber"]] = message["body"]
        after = page[0]["messageNumber"]
    return found


def stored(service: Service, chat: str, cookies: dict[str, str]) -> list[str]:
    """The texts of the chat's messages."""
    with httpx.Client(base_url=service.url + "/api/v1", cookies=cookies) as client:
        return list(all_messages(client, chat).values())
