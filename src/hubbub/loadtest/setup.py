"""Phase 1: a user, an application and a chat for each worker; what an earlier run left is used again."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hubbub.loadtest.wire import BadResponse, Response, parse, request

_AT_ONCE = 8
_TIMEOUT_S = 30.0
_PASSWORD = "performance-test"  # noqa: S105 - of users that exist for this test alone


class SetupFailed(Exception):
    """The service can't be reached, or did not answer as the contract says."""


@dataclass(frozen=True)
class Seat:
    """What a worker needs: its cookie, and where its chat is."""

    cookie: str
    token: str
    chat: int


class Client:
    """A plain HTTP/1.1 client on one kept connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self.base = parts.path.rstrip("/") + "/api/v1"
        self._address = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.cookie = ""

    async def call(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """Status and decoded body. Keeps the cookie it is given.

        Raises:
            SetupFailed
        """
        body = None if content is None else json.dumps(content).encode()
        sent = request(method, self.host, self.base + path, cookie=self.cookie, body=body)
        try:
            response = await asyncio.wait_for(self._exchange(sent), _TIMEOUT_S)
            result = json.loads(response.body) if response.body else None
        except (TimeoutError, OSError, BadResponse, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise SetupFailed(f"{method} {path} got no usable answer: {reason}.") from error
        return response.status, result

    async def _exchange(self, sent: bytes) -> Response:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._address, self._port, ssl=self._tls)
        reader, writer = self._streams
        writer.write(sent)
        buffer = b""
        while (response := parse(buffer)) is None:
            data = await reader.read(65536)
            if not data:
                raise ConnectionResetError("the connection was closed")
            buffer += data
        self._keep_cookie(buffer)
        if response.close:
            writer.close()
            self._streams = None
        return response

    def _keep_cookie(self, buffer: bytes) -> None:
        for line in buffer.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"set-cookie" and value.strip().startswith(b"auth_token="):
                self.cookie = value.strip().split(b";", 1)[0].decode("latin-1")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def prepare(url: str, workers: int) -> list[Seat]:
    """A seat for each worker.

    Raises:
        SetupFailed
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Seat:
        async with gate:
            client = Client(url)
            try:
                return await _seat(client, number)
            finally:
                client.close()

    tasks = [asyncio.ensure_future(one(number)) for number in range(workers)]
    try:
        return list(await asyncio.gather(*tasks))
    except SetupFailed:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _seat(client: Client, number: int) -> Seat:
    email = f"perftest{number}@example.com"
    account = {"name": f"Perftest {number}", "email": email, "password": _PASSWORD}
    status, _ = await client.call("POST", "/auth/login", {"email": email, "password": _PASSWORD})
    if status == 401:
        status, answer = await client.call("POST", "/auth/register", account)
        if status != 201:
            raise SetupFailed(f"{email} could neither log in nor register (status {status}: {answer}).")
    elif status != 200:
        raise SetupFailed(f"{email} could not log in (status {status}).")
    token = await _first(client, "/applications", "token", {"name": f"Performance test {number}"})
    chat = await _first(client, f"/applications/{token}/chats", "chatNumber", None)
    return Seat(client.cookie, token, chat)


async def _first(client: Client, path: str, field: str, content: Any) -> Any:
    """``field`` of the first thing at ``path``, which is made when there is none."""
    status, found = await client.call("GET", path + "?limit=1")
    if status == 200 and found:
        return found[0][field]
    status, made = await client.call("POST", path, content)
    if status != 201:
        raise SetupFailed(f"POST {path} answered {status}: {made}.")
    return made[field]
