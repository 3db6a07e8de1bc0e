"""Clients that have connected and whose TLS handshake is not complete. They count as connections, and are closed
first when there is no room."""

from __future__ import annotations

import asyncio
import logging
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
_AT_ONCE = 100  # clients that are accepted before others are served
_AGAIN_S = 1.0  # after one could not be accepted

log = logging.getLogger("hubbub.http")


class Handshakes:
    """Accepts clients from the listening socket and does their TLS handshakes, until it is stopped."""

    def __init__(self, edge: Edge, listener: socket.socket, context: SSLContext, backlog: int) -> None:
        self._edge = edge
        self._listener = listener
        self._context = context
        self._stopped = False
        listener.setblocking(False)
        listener.listen(backlog)
        self._listen()

    def accept(self, client: socket.socket) -> None:
        """One that is connected."""
        handshake = Handshake(self._edge, client)
        if not handshake.refused:
            # The keys that both agree on take the loop a millisecond or more.
            begin = partial(handshake.start, self._context)
            self._edge.turns.begin(begin, lambda: handshake.address or id(handshake), UNKNOWN_S)

    def stop(self) -> None:
        """Accept no more by itself."""
        self._stopped = True
        asyncio.get_running_loop().remove_reader(self._listener)

    def _listen(self) -> None:
        if not self._stopped:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client = self._listener.accept()[0]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("Can't accept a connection: %s.", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                loop.call_later(_AGAIN_S, self._listen)
                return
            self.accept(client)


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
        except OSError:  # it has gone
            self.refused = True
        else:
            self.refused = edge.enter(self, host) is not None
        if self.refused:  # there is no way to say so before both have agreed on TLS
            client.close()

    def start(self, context: SSLContext) -> None:
        if self._client.fileno() < 0:  # it was aborted before its turn
            return
        self._task = asyncio.get_running_loop().create_task(self._run(context))
        self._edge.tasks.add(self._task)
        self._task.add_done_callback(self._edge.tasks.discard)

    async def _run(self, context: SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            with suppress(OSError):  # what the client did wrong, or that it left: nobody is there to be told
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
