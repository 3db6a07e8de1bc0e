"""Accepts clients from a listening socket, all that wait at once. uvloop by itself accepts one in each turn of the
loop: a new client or a health check would wait one turn for each client that connected before it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

_MOST_AT_ONCE = 100  # clients that are accepted before others are served
_AGAIN_S = 1.0  # before the next try, after one could not be accepted

log = logging.getLogger("hubbub.http")


class Acceptor:
    """Hands each client to ``take``, until it is stopped."""

    def __init__(self, listener: socket.socket, backlog: int, take: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._backlog = backlog
        self._take = take
        self._stopped = False
        listener.setblocking(False)
        listener.listen(backlog)
        self._listen()

    def stop(self) -> None:
        """Close the listening socket, after accepting the clients that have connected, or they would be cut off."""
        self._stopped = True
        asyncio.get_running_loop().remove_reader(self._listener)
        for _ in range(0, self._backlog, _MOST_AT_ONCE):
            self._accept()
        self._listener.close()

    def _listen(self) -> None:
        if not self._stopped:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_MOST_AT_ONCE):
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
            self._take(client)
