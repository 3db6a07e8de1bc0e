"""Clients that write, change and read at random, from a seed, and record the answers."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

import httpx

from tests.conftest import Person
from tests.history.record import Final, History, Kind, Operation

_LIMIT = 20


class Workload:
    """Clients that run inside the async context. ``urls`` is called for each request, as a service may come back at
    another port.
    """

    def __init__(
        self, urls: Callable[[], Sequence[str]], seed: int, *, clients: int = 6, chats: int = 3, give_up_s: float = 20
    ) -> None:
        self.give_up_s = give_up_s
        self.history = History(seed)
        self._urls = urls
        self._seed = seed
        self._clients = clients
        self.stopping = False
        self.recent: deque[tuple[int, int]] = deque(maxlen=30)  # anybody's messages, by chat and number
        with_owner = Person(urls()[0])
        # Each chat has an application of its own, so that several shards are used.
        self.chats = [with_owner.chat() for _ in range(chats)]
        self._cookies = dict(with_owner.cookies)
        with_owner.close()

    async def __aenter__(self) -> Workload:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping = True
        await asyncio.gather(*self._tasks)

    @property
    def acknowledged(self) -> int:
        return sum(each.done for each in self.history.operations if each.kind == "post")

    async def more(self, count: int, within_s: float = 30.0, after: str = "the last fault") -> None:
        """Wait until this many more posts were acknowledged."""
        wanted, until = self.acknowledged + count, time.monotonic() + within_s
        while self.acknowledged < wanted:
            assert time.monotonic() < until, f"no {count} writes were acknowledged within {within_s} s of {after}"
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)

    async def _client(self, number: int) -> None:
        client = _Client(self, number, random.Random(f"{self._seed}/{number}"), self._cookies)
        while not self.stopping:
            await client.step()
        await client.close()

    def url(self, choice: int) -> str:
        return self._urls()[choice] + "/api/v1"

    @property
    def processes(self) -> int:
        return len(self._urls())

    async def finish(self, stored: Callable[[str], list[tuple[int, str]]], patience_s: float = 20) -> None:
        """Record the final state, once the lists and counts have caught up. ``stored`` returns the numbers and texts,
        ascending, that the database has of the chat with a path.
        """
        async with httpx.AsyncClient(base_url=self.url(0), cookies=self._cookies, timeout=30) as client:
            for chat in self.chats:
                until = time.monotonic() + patience_s
                while True:
                    messages = await asyncio.to_thread(stored, chat)
                    final = Final(messages, await everything(client, chat), await _count(client, chat))
                    caught_up = final.listed == messages and final.count == len(messages)
                    if caught_up or time.monotonic() > until:
                        break
                    await asyncio.sleep(0.1)
                self.history.final.append(final)


async def _count(client: httpx.AsyncClient, chat: str) -> int:
    answer = await client.get(chat)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["messagesCount"])


async def everything(client: httpx.AsyncClient, chat: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    while True:
        answer = await client.get(f"{chat}/messages?after={found[-1][0] if found else 0}&limit=100")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [(message["messageNumber"], message["body"]) for message in reversed(page)]
        if len(page) < 100:
            return found


class _Client:
    """A client with one request at a time. ``_mine`` has the chats and numbers of messages that it may still change,
    ``_keyed`` the last acknowledged posts with an Idempotency-Key.
    """

    def __init__(self, workload: Workload, number: int, rng: random.Random, cookies: dict[str, str]) -> None:
        self._workload = workload
        self._number = number
        self._rng = rng
        self._turns = itertools.count()
        self._mine: list[tuple[int, int]] = []
        self._keyed: deque[Operation] = deque(maxlen=10)
        self._at = 0
        self._http = httpx.AsyncClient(cookies=cookies, timeout=workload.give_up_s)

    async def close(self) -> None:
        await self._http.aclose()

    async def step(self) -> None:
        chat = self._rng.randrange(len(self._workload.chats))
        what = self._rng.choices(
            ("post", "keyed", "again", "edit", "rival", "delete", "newest", "after", "one"),
            (35, 15, 4, 10, 4, 3, 15, 8, 6),
        )[0]
        if what in ("post", "keyed"):
            await self._post(chat, keyed=what == "keyed")
        elif what == "again":
            if self._keyed:
                await self._again(self._rng.choice(self._keyed))
        elif what == "rival":
            if self._workload.recent:
                await self._edit(*self._rng.choice(self._workload.recent))
        elif what in ("edit", "delete", "one"):
            if self._mine:
                await self._with_mine(what)
        elif what == "newest":
            await self._send(Operation(self._number, "newest", chat, 0, limit=_LIMIT))
        else:
            known = [number for at, number in self._mine if at == chat]
            after = max(self._rng.choice(known) - 3, 0) if known else 0
            await self._send(Operation(self._number, "after", chat, 0, number=after, limit=_LIMIT))

    async def _post(self, chat: int, *, keyed: bool) -> None:
        body = f"{self._number}/{next(self._turns)}"
        operation = Operation(self._number, "post", chat, 0, body=body, key=f"key {body}" if keyed else "")
        await self._send(operation)
        while keyed and operation.unknown and not self._workload.stopping:
            operation = Operation(self._number, "post", chat, 0, body=body, key=operation.key)
            await self._send(operation)
        if operation.done:
            self._mine.append((chat, operation.number))
            self._workload.recent.append((chat, operation.number))
            if keyed:
                self._keyed.append(operation)
            await self._read_it(chat, operation.number)

    async def _again(self, post: Operation) -> None:
        """Retry an acknowledged post, whose message may have been deleted since."""
        await self._send(Operation(self._number, "post", post.chat, 0, body=post.body, key=post.key))

    async def _read_it(self, chat: int, number: int) -> None:
        """Read a message right after its acknowledgement, often through another process."""
        ways: tuple[Kind | None, ...] = ("one", "newest", "after", None)
        way = self._rng.choice(ways)
        if way is None:
            return
        limit = 0 if way == "one" else _LIMIT
        about = number - 1 if way == "after" else number if way == "one" else 0
        await self._send(Operation(self._number, way, chat, 0, number=about, limit=limit), elsewhere=True)

    async def _edit(self, chat: int, number: int) -> None:
        body = f"{self._number}/{next(self._turns)} edits {number}"
        operation = Operation(self._number, "edit", chat, 0, number=number, body=body)
        await self._send(operation)
        if operation.done:
            await self._read_it(chat, number)

    async def _with_mine(self, what: str) -> None:
        at = self._rng.randrange(max(len(self._mine) - 30, 0), len(self._mine))
        chat, number = self._mine[at]
        if what == "edit":
            await self._edit(chat, number)
        elif what == "delete":
            del self._mine[at]
            operation = Operation(self._number, "delete", chat, 0, number=number)
            await self._send(operation)
            if operation.done:
                await self._read_it(chat, number)
        else:
            await self._send(Operation(self._number, "one", chat, 0, number=number))

    async def _send(self, operation: Operation, *, elsewhere: bool = False) -> None:
        """Send a request and record the answer. After a failure, wait a moment."""
        processes = self._workload.processes
        step = self._rng.randrange(1, processes) if elsewhere and processes > 1 else self._rng.randrange(processes)
        self._at = operation.at = (self._at + step) % processes
        operation.begun = time.monotonic()
        self._workload.history.operations.append(operation)
        try:
            answer = await self._request(operation)
        except httpx.TransportError as error:
            operation.late = isinstance(error, httpx.ReadTimeout)
        else:
            _take(operation, answer)
        operation.ended = time.monotonic()
        if operation.unknown:
            await asyncio.sleep(0.02)

    async def _request(self, operation: Operation) -> httpx.Response:
        path = self._workload.url(operation.at) + self._workload.chats[operation.chat] + "/messages"
        if operation.kind == "post":
            headers = {"Idempotency-Key": operation.key} if operation.key else {}
            return await self._http.post(path, json={"body": operation.body}, headers=headers)
        if operation.kind == "edit":
            return await self._http.put(path, json={"messageNumber": operation.number, "body": operation.body})
        if operation.kind == "delete":
            return await self._http.delete(f"{path}/{operation.number}")
        if operation.kind == "one":
            return await self._http.get(f"{path}/{operation.number}")
        query = f"after={operation.number}&" if operation.kind == "after" else ""
        return await self._http.get(f"{path}?{query}limit={operation.limit}")


def _take(operation: Operation, answer: httpx.Response) -> None:
    if answer.status_code == 200:
        content = answer.json()
        if operation.kind == "post":
            operation.number = content["messageNumber"]
        elif operation.kind == "one":
            operation.seen = [(content["messageNumber"], content["body"])]
        elif operation.kind in ("newest", "after"):
            operation.seen = [(each["messageNumber"], each["body"]) for each in reversed(content)]
    operation.status = answer.status_code
    operation.lag = answer.headers.get("Hubbub-Lag") == "queue"
