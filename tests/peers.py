"""Two processes that serve, as two peers on the loop of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from hubbub.embedded.peers import Handlers, Peer


class Two(NamedTuple):
    """The other process as the first sees it, and the first as that sees it."""

    other: Peer
    first: Peer


@asynccontextmanager
async def two_peers(first: Handlers, other: Handlers) -> AsyncIterator[Two]:
    """``first`` answers in the first process, ``other`` in the other one."""
    ours, theirs = socket.socketpair()
    peers = Two(Peer("other"), Peer("first"))
    await peers.other.connect(ours, first)
    await peers.first.connect(theirs, other)
    yield peers
    async with asyncio.timeout(20):
        await asyncio.gather(peers.first.close(), peers.other.close())
