"""A server in a process of its own: ``python -m tests.unit.small_server LISTENER [TOLD]``. Both are numbers of open
files.

It prints what happens, a line each. It answers every request with "well", one for /held only after a byte on standard
input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from hubbub.http.edge import Edge
from hubbub.http.server import serve, serve_until_told


class NoRoutes:
    def match(self, _method: bytes, _target: bytes) -> Any:
        return None


async def answer(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    if scope["path"] == "/held":
        say("held")
        await asyncio.to_thread(os.read, 0, 1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"well"})


def say(what: str) -> None:
    print(what, flush=True)


@asynccontextmanager
async def system() -> AsyncIterator[Edge]:
    edge = Edge(cast(Any, NoRoutes()), answer)
    edge.tick()
    yield edge
    say("finished")


def main(listener: str, told: str = "") -> None:
    logging.basicConfig(level=logging.INFO)
    accepting = socket.socket(fileno=int(listener))
    if told:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        serve_until_told(system, accepting, socket.socket(fileno=int(told)), started=lambda _: say("started"))
    else:
        serve(system, accepting, started=lambda _: say("started"), stopping=lambda: say("stopping"))


if __name__ == "__main__":
    main(*sys.argv[1:])
