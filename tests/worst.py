"""For each route the requests that take longest, and how long they hold the event loop."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hubbub.embedded.data_folder import DataFolder
from hubbub.embedded.processes import Processes
from hubbub.embedded.service import serving
from hubbub.http.body import MAX_BODY
from hubbub.http.connection import Connection
from hubbub.http.edge import Edge
from hubbub.http.reader import MAX_HEAD
from hubbub.http.routing import MAX_OPEN_BODY
from hubbub.settings import load
from tests.holds import Holds, holds
from tests.large import EMAIL, LONGEST, PASSWORD, TOKEN, Sizes

QUERIES = {
    "a typo in every word": " ".join(f"ab{letter}{letter}" for letter in "cdefghijklmnopqrstuvwxyz01234"),
    "as long as can be": " ".join(f"abcdefg{number}" for number in range(200))[:1000],
    "repeated letters": " ".join("a" * (20 + at) + "b" + "a" * 20 for at in range(15)),
    "parts of what becomes many": "الله عليه وسلم",
    "a word": "abc",
}
_STREAMED = 500  # events, the longest among them


@dataclass(frozen=True)
class Worst:
    """``what`` makes it long. ``wanted`` is its status."""

    what: str
    path: str
    more: dict[str, Any] = field(default_factory=dict)
    wanted: int = 200
    streamed: bool = False


def wide(most: int = MAX_BODY, /, **named: Any) -> dict[str, Any]:
    """The largest body with these fields and one that no request has, of as many parts as can be."""
    start = json.dumps({**named, "x": []})[:-2].encode()
    parts = b"[]," * ((most - len(start) - 3) // 3)
    return {"content": start + parts[:-1] + b"]}", "headers": {"Content-Type": "application/json"}}


def unknown(**named: Any) -> dict[str, Any]:
    """The largest body with these fields and as many as can be that no request has."""
    names = (MAX_BODY - 1000) // len('"12345":0,')
    content = json.dumps({**named} | dict.fromkeys(map(str, range(10_000, 10_000 + names)), 0), separators=(",", ":"))
    return {"content": content.encode(), "headers": {"Content-Type": "application/json"}}


def worst(sizes: Sizes) -> dict[tuple[str, str], list[Worst]]:
    """By the method and path of the document, in the order in which they can be asked."""
    application = f"/api/v1/applications/{TOKEN}"
    chat = f"{application}/chats/1"
    messages = f"{chat}/messages"
    account = {"email": EMAIL, "password": PASSWORD}
    newcomer = {"name": "n" * 255, "email": "a" * 60 + "@" + "ü." * 80 + "example.com", "password": "p" * 128}
    last = sizes.messages + 1
    many = {"Cookie": "a=b;" * ((MAX_HEAD - 2000) // 4)}

    def pages(path: str, count: int) -> list[Worst]:
        return [
            Worst("the first page", f"{path}?limit=100"),
            Worst("a page that is read at once", f"{path}?page=11&limit=100"),
            Worst("the deepest page", f"{path}?page={max(count // 100, 1)}&limit=100"),
        ]

    path = "/api/v1/applications/{token}"
    one = path + "/chats/{number}"
    return {
        ("GET", "/healthz"): [Worst("", "/healthz")],
        ("GET", "/readyz"): [Worst("", "/readyz")],
        ("GET", "/openapi.json"): [Worst("the first time", "/openapi.json"), Worst("again", "/openapi.json")],
        ("GET", "/metrics"): [Worst("", "/metrics")],
        ("POST", "/api/v1/auth/register"): [
            Worst("a long email", "/api/v1/auth/register", {"json": newcomer}, 422),
            Worst(
                "a wide body",
                "/api/v1/auth/register",
                wide(MAX_OPEN_BODY, name="n", email="new@example.com", password=PASSWORD),
                422,
            ),
        ],
        ("POST", "/api/v1/auth/login"): [
            Worst("a wide body", "/api/v1/auth/login", wide(MAX_OPEN_BODY, **account), 422)
        ],
        ("POST", "/api/v1/auth/tokens"): [
            Worst("a wide body", "/api/v1/auth/tokens", wide(MAX_OPEN_BODY, **account), 422)
        ],
        ("POST", "/api/v1/auth/refresh"): [Worst("", "/api/v1/auth/refresh")],
        ("GET", "/api/v1/auth/me"): [
            Worst("", "/api/v1/auth/me"),
            Worst("the largest cookie", "/api/v1/auth/me", {"headers": many}, 401),
            Worst(
                "the longest token", "/api/v1/auth/me", {"headers": {"Authorization": "Bearer " + "a." * 15_000}}, 401
            ),
        ],
        ("POST", "/api/v1/auth/setup"): [
            Worst("a long email", "/api/v1/auth/setup", {"json": {**newcomer, "code": "c"}}, 422),
            Worst(
                "a wide body",
                "/api/v1/auth/setup",
                wide(MAX_OPEN_BODY, code="c", name="n", email="setup@example.com", password=PASSWORD),
                422,
            ),
        ],
        ("POST", "/api/v1/auth/password-reset"): [
            Worst("a wide body", "/api/v1/auth/password-reset", wide(MAX_OPEN_BODY, email="a@example.com"), 404)
        ],
        ("POST", "/api/v1/auth/password-reset/confirm"): [
            Worst(
                "a wide body",
                "/api/v1/auth/password-reset/confirm",
                wide(MAX_OPEN_BODY, code="c", password=PASSWORD),
                422,
            )
        ],
        ("POST", "/api/v1/invites/accept"): [
            Worst("a wide body", "/api/v1/invites/accept", wide(code="c"), 422),
            Worst("a long code", "/api/v1/invites/accept", {"json": {"code": "c" * 20_000}}, 422),
        ],
        ("POST", path + "/invites"): [Worst("a wide body", f"{application}/invites", wide(role="member"), 422)],
        ("GET", path + "/invites"): [
            Worst("the first page", f"{application}/invites?limit=100"),
            Worst("the deepest page", f"{application}/invites?page=1000000&limit=100"),
        ],
        ("DELETE", path + "/invites/{invite}"): [Worst("", f"{application}/invites/none", {}, 404)],
        ("POST", "/api/v1/applications"): [Worst("a wide body", "/api/v1/applications", wide(name="n"), 422)],
        ("GET", "/api/v1/applications"): pages("/api/v1/applications", sizes.applications),
        ("PUT", "/api/v1/applications"): [
            Worst("a wide body", "/api/v1/applications", wide(token=TOKEN, name="n"), 422)
        ],
        ("GET", path): [Worst("", application)],
        ("PATCH", path): [Worst("a wide body", application, wide(name="n"), 422)],
        ("GET", path + "/members"): pages(f"{application}/members", sizes.members),
        ("POST", path + "/members"): [
            Worst("", f"{application}/members", {"json": {"email": "b@example.com", "role": "admin"}}, 201),
            Worst("a wide body", f"{application}/members", wide(email="b@example.com", role="admin"), 422),
        ],
        ("DELETE", path + "/members"): [Worst("", f"{application}/members?email=b@example.com", {}, 204)],
        ("GET", path + "/chats"): pages(f"{application}/chats", sizes.chats),
        ("POST", path + "/chats"): [Worst("a wide body", f"{application}/chats", wide(title="t"), 422)],
        ("GET", one): [Worst("", chat)],
        ("PATCH", one): [Worst("a wide body", chat, wide(title="t"), 422)],
        ("GET", one + "/messages"): [
            *pages(messages, sizes.messages),
            Worst("before", f"{messages}?before={last}&limit=100"),
            Worst("after", f"{messages}?after=1&limit=100"),
        ],
        ("POST", one + "/messages"): [
            Worst("the longest text", messages, {"json": {"body": LONGEST}}),
            Worst("a wide body", messages, wide(body="x"), 422),
            Worst("as many fields as can be", messages, unknown(body="x"), 422),
        ],
        ("PUT", one + "/messages"): [
            Worst("the longest text", messages, {"json": {"messageNumber": last, "body": LONGEST}})
        ],
        ("GET", one + "/messages/{message}"): [Worst("the longest text", f"{messages}/{last}")],
        ("PATCH", one + "/messages/{message}"): [Worst("a wide body", f"{messages}/{last}", wide(body="x"), 422)],
        ("DELETE", one + "/messages/{message}"): [Worst("", f"{messages}/{last}", {}, 204)],
        ("GET", one + "/messages/search"): [
            Worst(what, f"{application}/chats/2/messages/search", {"params": {"q": q, "limit": 100}})
            for what, q in QUERIES.items()
        ],
        ("GET", one + "/messages/stream"): [
            Worst("a long chat from its beginning", f"{messages}/stream?after=0", streamed=True)
        ],
        ("GET", "/api/v1/operator"): [Worst("", "/api/v1/operator")],
        ("GET", "/api/v1/operator/dead"): [Worst("", "/api/v1/operator/dead")],
        ("POST", "/api/v1/operator/retry"): [Worst("a wide body", "/api/v1/operator/retry", wide(number=1), 422)],
        ("PATCH", "/api/v1/auth/me"): [Worst("the longest name", "/api/v1/auth/me", {"json": {"name": "n" * 255}})],
        ("PUT", "/api/v1/auth/me/password"): [
            Worst("", "/api/v1/auth/me/password", {"json": {"currentPassword": PASSWORD, "password": PASSWORD}})
        ],
        ("DELETE", "/api/v1/auth/me"): [
            Worst("who owns many", "/api/v1/auth/me", {"json": {"currentPassword": PASSWORD}}, 422)
        ],
        ("PUT", path + "/owner"): [Worst("", f"{application}/owner", {"json": {"email": EMAIL}}, 204)],
        ("DELETE", one): [Worst("a long chat", chat, {}, 204)],
        ("DELETE", path): [Worst("of many chats and members", application, {}, 204)],
        ("DELETE", "/api/v1/auth/logout"): [Worst("", "/api/v1/auth/logout")],
        ("DELETE", "/api/v1/auth/sessions"): [Worst("", "/api/v1/auth/sessions", {}, 204)],
    }


class Client:
    """One connection, used from a thread: its CPU is not the loop's."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self.login()

    def login(self) -> None:
        self._http.post("/api/v1/auth/login", json={"email": EMAIL, "password": PASSWORD}).raise_for_status()

    def close(self) -> None:
        self._http.close()

    def operations(self) -> set[tuple[str, str]]:
        paths = self._http.get("/openapi.json").json()["paths"]
        return {(method.upper(), path) for path, methods in paths.items() for method in methods}

    def ready(self) -> bool:
        """The index has what the searches are for."""
        found = self._http.get(f"/api/v1/applications/{TOKEN}/chats/2/messages/search?q=abc")
        return found.status_code == 200 and found.text != "[]"

    def ask(self, method: str, asked: Worst) -> None:
        if method != "GET":
            self.login()  # an earlier request may have ended the session
        with self._http.stream(method, asked.path, **asked.more) as answer:
            if asked.streamed:
                _hear(answer.iter_text())
            else:
                answer.read()
        assert answer.status_code == asked.wanted, (method, asked, answer.status_code)


def _hear(pieces: Iterator[str]) -> None:
    heard = 0
    while heard < _STREAMED:
        heard += next(pieces).count("event: message")


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[str]:
    """The URL of a service in this process, on this loop."""
    folder = DataFolder.open(path)
    try:
        processes = Processes(folder, 1)
        place = processes.fork_serving([socket.socket()], lambda *_: None)
        async with serving(load(data=path), folder, place, processes) as edge:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: Connection(edge), "127.0.0.1", 0)
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            server.close()
            await _end(edge)
    finally:
        folder.close()


async def _end(edge: Edge) -> None:
    edge.stop()
    for connection in list(edge.connections):
        connection.leave()
    while edge.connections or edge.tasks:
        await asyncio.sleep(0.01)


async def longest_holds(path: Path, sizes: Sizes) -> dict[tuple[str, str], tuple[str, Holds]]:
    """For each operation of the document, which of its requests held the loop longest, and how long."""
    found: dict[tuple[str, str], tuple[str, Holds]] = {}
    async with served(path) as url:
        with closing(await asyncio.to_thread(Client, url)) as client:
            while not await asyncio.to_thread(client.ready):
                await asyncio.sleep(0.1)
            requests = worst(sizes)
            gc.collect()
            gc.freeze()  # as the server does, and what a test has made is none of the service's
            for (method, path_of), asked in requests.items():
                for each in asked:
                    with holds() as seen:
                        await asyncio.to_thread(client.ask, method, each)
                        await asyncio.sleep(0.01)  # what is done behind the answer
                    if seen.longest_s >= found.get((method, path_of), ("", Holds()))[1].longest_s:
                        found[method, path_of] = each.what, seen
            gc.unfreeze()
            await asyncio.to_thread(client.login)
            missing = await asyncio.to_thread(client.operations) - requests.keys()
    assert not missing, f"no request for {missing}"
    return found
