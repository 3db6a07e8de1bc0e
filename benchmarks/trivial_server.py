"""A server that answers everything at once and stores nothing, to measure the load generator.

python -m benchmarks.trivial_server            # prints its URL; then, in another terminal,
hubbub perftest --url URL --writes 10000 --reads 20000 --processes 1
"""

from __future__ import annotations

import asyncio
import itertools
from typing import cast

import uvloop

_numbers = itertools.count(1)
_MESSAGE = (
    b'{"messageNumber":2000000000,"senderId":"0123456789abcdef","senderName":"A","body":"%s","createdAt":"2026-01-01T00:00:00Z"}'
    % (b"x" * 76)
)
_MESSAGES = b"[" + b",".join([_MESSAGE] * 10) + b"]"
_CHATS = b'[{"chatNumber":1,"title":null,"messagesCount":1}]'


def _response(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status,
        more,
        len(body),
        body,
    )


_LISTED = _response(b"200 OK", _MESSAGES)
_CHATS_LISTED = _response(b"200 OK", _CHATS)
_IN = _response(b"201 Created", b'{"message":"in"}', b"Set-Cookie: auth_token=x; HttpOnly\r\n")
_MADE = _response(b"201 Created", b'{"token":"t","chatNumber":1}')
_NONE = _response(b"200 OK", b"[]")


class Trivial(asyncio.Protocol):
    """A connection. The generator sends one request at a time, in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        line = data[: data.find(b"\r\n")]
        if line.startswith(b"GET"):
            answer = _LISTED if b"/messages" in line else _CHATS_LISTED if b"/chats" in line else _NONE
        elif line.startswith(b"DELETE"):
            answer = _NONE
        elif b"/messages" in line:
            answer = _response(b"200 OK", b'{"messageNumber":%d}' % next(_numbers))
        else:
            answer = _IN if b"/auth/" in line else _MADE
        self._transport.write(answer)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Trivial, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
