"""A plain HTTP/1.1 client on one persistent connection, for setting up and reading back."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from typing import Any
from urllib.parse import urlsplit

from hubbub.loadtest.http_protocol import BadResponse, Response, parse, request
from hubbub.loadtest.sockets import connect

_TIMEOUT_S = 30.0
_LONGEST = 64 * 1024 * 1024


class CallFailed(Exception):
    """There was no usable answer."""


class NotConnected(CallFailed):
    """There was no connection, so nothing was sent."""


class TooLong(CallFailed):
    """The answer has more bytes than the client accepts."""


class Client:
    """``cookie`` is sent with each call, and replaced when the service gives another. ``longest`` is the most bytes of
    an answer.
    """

    def __init__(self, url: str, cookie: str = "", *, longest: int = _LONGEST) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self.base = parts.path.rstrip("/") + "/api/v1"
        self._address = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._longest = longest
        self.cookie = cookie

    @property
    def connected(self) -> bool:
        """Whether a connection is kept: not before the first call, nor after one that failed."""
        return self._streams is not None

    async def call(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """Status and decoded body.

        Raises:
            CallFailed
        """
        body = None if content is None else json.dumps(content).encode()
        response = await self.raw(method, self.base + path, body)
        try:
            return response.status, json.loads(response.body) if response.body else None
        except ValueError as error:
            raise CallFailed(f"{method} {path} got an answer that is no JSON.") from error

    async def raw(self, method: str, target: str, body: bytes | None = None) -> Response:
        """The answer as it came; ``target`` is the whole path. Raises CallFailed."""
        sent = request(method, self.host, target, cookie=self.cookie, body=body)
        try:
            # Not wait_for: in Python 3.11 it may swallow a cancellation that comes together with the answer.
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._exchange(sent)
        except (TimeoutError, OSError, BadResponse) as error:
            failed = NotConnected if self._streams is None else CallFailed
            self.close()
            raise failed(f"{method} {target} got no usable answer: {_reason(error)}.") from error

    async def _exchange(self, sent: bytes) -> Response:
        if self._streams is None:
            self._streams = await self._connect()
        reader, writer = self._streams
        writer.write(sent)
        buffer = b""
        while (response := parse(buffer)) is None:
            data = await reader.read(65536)
            if not data:
                raise ConnectionResetError("the connection was closed")
            buffer += data
            if len(buffer) > self._longest:
                self.close()
                raise TooLong(f"The answer is over {self._longest} bytes.")
        self._keep_cookie(buffer)
        if response.close:
            self.close()
        return response

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # uvloop's own look-up of a name goes on after a cancellation, and then prints its failure.
        connection = await connect(self._address, self._port, None)
        name = self._address if self._tls else None
        return await asyncio.open_connection(sock=connection, ssl=self._tls, server_hostname=name)

    def _keep_cookie(self, buffer: bytes) -> None:
        for line in buffer.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"set-cookie" and value.strip().startswith(b"auth_token="):
                self.cookie = value.strip().split(b";", 1)[0].decode("latin-1")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionError) and error.errno is not None:
        return os.strerror(error.errno)  # asyncio's own text is "Connect call failed" with the address
    return str(error) or type(error).__name__
