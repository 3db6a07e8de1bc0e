"""Runs an Edge under uvicorn's Server until a signal comes."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop

from hubbub.http.connection import Edge

GRACE_S = 30


class PortTaken(Exception):
    """The address can't be listened on; the text says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        PortTaken
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise PortTaken(
            f"Can't listen on {host} port {port}: {error.strerror}. Choose others with --host and --port."
        ) from error
    return listener


def serve(
    system: Callable[[], AbstractAsyncContextManager[Edge]],
    listener: socket.socket,
    *,
    started: Callable[[str], None],
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted and return. ``started`` gets the URL."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            scheme = "https" if tls_cert else "http"
            started(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    async def main() -> None:
        async with system() as edge:
            config = uvicorn.Config(
                edge.app,
                http=cast(Any, edge.protocol),
                lifespan="off",
                ws="none",
                log_config=None,
                backlog=2048,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=tls_cert,
                ssl_keyfile=tls_key,
            )
            # What start-up made lives as long as the process: keep it out of every later collection.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            await Server(config).serve(sockets=[listener])

    # uvicorn raises the signal again once it has shut down, for whoever was listening before. We were, and have
    # nothing left to do but to end with status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvloop.run(main())
