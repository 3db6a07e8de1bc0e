"""What one API process has acknowledged is in every read that starts afterwards at another.

Posts go to one of three processes. The message is then read at once, by its number at another process, in the list at
the third, and after the number before it. From time to time a chat is created, which the lists and counts of the
others must have. With `--fault-rounds` there are 100,000 posts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from hubbub.loadtest.client import Client
from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person
from tests.servers import need_servers

_POSTS = 3_000
_MANY = 100_000
_WRITERS = 8


@pytest.fixture
def stack() -> Iterator[ClusterStack]:
    need_servers()
    many = {"HUBBUB_USER_RATE": "1000000"}  # all requests are one user's
    with ClusterStack(apis=3, writers=2, search=None, settings=many) as stack:
        yield stack


async def test_reads_at_any_process_see_what_was_acknowledged(
    stack: ClusterStack, request: pytest.FixtureRequest, fault_seed: int
) -> None:
    posts = _MANY if request.config.getoption("--fault-rounds") is not None else _POSTS
    person = Person(stack.url)
    cookie = f"auth_token={person.cookies['auth_token']}"
    token = person.application()
    chats = [person.chat(token) for _ in range(3)]
    person.close()
    stale: list[str] = []
    left = iter(range(posts))

    async def write(number: int) -> None:
        rng = random.Random(f"{fault_seed}/{number}")
        clients = [Client(part.url, cookie) for part in stack.apis]
        for turn in left:
            rng.shuffle(clients)
            await one(clients, rng.choice(chats), f"{number}/{turn}", stale)
            if turn % 500 == 0:
                await new_chat(clients, f"/applications/{token}", stale)
        for client in clients:
            client.close()

    await asyncio.gather(*(write(number) for number in range(_WRITERS)))
    print(f"\n{posts} posts at three processes, seed {fault_seed}: {len(stale)} stale reads")
    assert stale == []


async def asked(client: Client, method: str, path: str, content: Any = None) -> Any:
    status, answer = await client.call(method, path, content)
    assert status in (200, 201), (method, path, status, answer)
    return answer


async def one(clients: list[Client], chat: str, body: str, stale: list[str]) -> None:
    writer, by_number, by_list = clients
    number = (await asked(writer, "POST", f"{chat}/messages", {"body": body}))["messageNumber"]
    alone, newest, behind = await asyncio.gather(
        asked(by_number, "GET", f"{chat}/messages/{number}"),
        asked(by_list, "GET", f"{chat}/messages"),
        asked(writer, "GET", f"{chat}/messages?after={number - 1}&limit=100"),
    )
    if alone["body"] != body:
        stale.append(f"{chat}/messages/{number}")
    # The list has ten. Others may have pushed the message out, but then all of them are above it.
    if number not in [each["messageNumber"] for each in newest] and newest[-1]["messageNumber"] < number:
        stale.append(f"{chat}/messages lacks {number}")
    if behind[-1]["messageNumber"] != number:
        stale.append(f"{chat}/messages?after= lacks {number}")


async def new_chat(clients: list[Client], application: str, stale: list[str]) -> None:
    writer, lister, counter = clients
    number = (await asked(writer, "POST", f"{application}/chats", {"title": "new"}))["chatNumber"]
    listed, counted = await asyncio.gather(
        asked(lister, "GET", f"{application}/chats?limit=100"), asked(counter, "GET", application)
    )
    if number not in [each["chatNumber"] for each in listed]:
        stale.append(f"{application}/chats lacks {number}")
    if counted["chatsCount"] < number:
        stale.append(f"{application} counts {counted['chatsCount']} chats, and {number} was made")
