"""Clients that have connected and whose TLS handshake is not complete. They count as connections, and are closed
first when there is no room."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING

from hubbub.http.connection import Connection
from hubbub.http.shares import EXEMPT
from hubbub.http.turns import UNKNOWN_S

if TYPE_CHECKING:
    from hubbub.http.edge import Edge

HANDSHAKE_S = 10.0


class Handshakes:
    """Does the TLS handshakes of clients that have connected."""

    def __init__(self, edge: Edge, context: SSLContext) -> None:
        self._edge = edge
        self._context = context

    def take(self, client: socket.socket) -> None:
        handshake = Handshake(self._edge, client)
        if not handshake.refused:
            # Agreeing on the keys takes the loop a millisecond or more.
            begin = partial(handshake.start, self._context)
            self._edge.turns.begin(begin, lambda: handshake.address or id(handshake), UNKNOWN_S)


class Handshake:
    """One client's handshake. The edge treats it as a connection that waits for its client; ``refused`` if there is no
    room for it."""

    arriving = -1  # less than any connection has sent
    waits = True

    def __init__(self, edge: Edge, client: socket.socket) -> None:
        self.address = EXEMPT
        self.deadline = edge.clock + HANDSHAKE_S
        self._edge = edge
        self._client = client
        self._task: asyncio.Task[None] | None = None
        try:
            host = client.getpeername()[0]
        except OSError:  # it has left
            self.refused = True
        else:
            self.refused = edge.enter(self, host) is not None
        if self.refused:  # there is no way to say so before both have agreed on TLS
            client.close()

    def start(self, context: SSLContext) -> None:
        if self._client.fileno() < 0:  # it was aborted before its turn
            return
        self._task = self._edge.start(self._run(context))

    async def _run(self, context: SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            with suppress(OSError):  # the client made an error, or left: there is nobody to report it to
                await loop.connect_accepted_socket(
                    lambda: _Agreed(self._edge, self), self._client, ssl=context, ssl_handshake_timeout=HANDSHAKE_S
                )
        finally:
            self._edge.leave(self)

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._client.close()
            self._edge.leave(self)

    leave = expire = abort


class _Agreed(Connection):
    """The connection that replaces its handshake."""

    __slots__ = ("_handshake",)

    def __init__(self, edge: Edge, handshake: Handshake) -> None:
        super().__init__(edge)
        self._handshake = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.edge.leave(self._handshake)
        super().connection_made(transport)
