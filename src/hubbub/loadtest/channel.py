"""The connection between the coordinator and its generators: msgpack messages over TCP, each after its length.

Each side proves that it has the run's key before the other accepts anything (a challenge answered by HMAC-SHA256, RFC
2104; the two sides' answers differ, so none can be sent back). The messages are neither encrypted nor signed: between
machines, use a trusted network.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets

import msgspec

from hubbub.loadtest.plan import Plan
from hubbub.loadtest.scenario import VirtualUser, Workload
from hubbub.loadtest.summary import SecondSummary
from hubbub.loadtest.verify import Findings

_CHALLENGE = 32
_HANDSHAKE_S = 10.0
_LONGEST = 256 * 1024 * 1024


class ChannelClosed(Exception):
    """The other side has gone, or has another key; the text says which."""


class Task(msgspec.Struct, tag=True):
    """What a generator needs to know. ``users`` are its own workers', whose numbers are index, index + count, …"""

    url: str
    workload: Workload
    users: list[VirtualUser]
    index: int
    count: int


class Phase(msgspec.Struct, tag=True):
    """Run this phase, beginning ``delay_s`` after it arrives."""

    plan: Plan
    delay_s: float


class Verify(msgspec.Struct, tag=True):
    """Read back all that was acknowledged. ``stranger`` is the cookie of a user who belongs to no application."""

    stranger: str


class Ready(msgspec.Struct, tag=True):
    """All workers are connected."""


class PhaseDone(msgspec.Struct, tag=True):
    took_s: float
    unsent: tuple[int, int]  # writes, reads
    peak_bytes: int


class Broken(msgspec.Struct, tag=True):
    """The generator can't go on."""

    why: str


Message = Task | Phase | Verify | Ready | SecondSummary | PhaseDone | Findings | Broken
_decoder = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()


class Channel:
    """One connection, after ``prove``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def prove(self, key: str, *, coordinator: bool) -> None:
        """Show that this side has the key, and see that the other has. Raises ChannelClosed."""
        mine, other = (b"coordinator", b"generator") if coordinator else (b"generator", b"coordinator")
        challenge = secrets.token_bytes(_CHALLENGE)
        self._writer.write(challenge)
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                theirs = await self._reader.readexactly(_CHALLENGE)
                self._writer.write(_answer(key, mine, theirs))
                answer = await self._reader.readexactly(_CHALLENGE)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise ChannelClosed("the other side sent no message of a performance test: is it one?") from error
        if not hmac.compare_digest(answer, _answer(key, other, challenge)):
            self.close()
            raise ChannelClosed("the other side has another key")

    def send(self, message: Message) -> None:
        """Raises ChannelClosed."""
        if self._writer.is_closing():
            raise ChannelClosed("the connection was closed")
        body = _encoder.encode(message)
        self._writer.write(len(body).to_bytes(4, "big") + body)

    async def receive(self) -> Message:
        """Raises ChannelClosed."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > _LONGEST:
                raise ChannelClosed(f"a message of {size} bytes")
            message: Message = _decoder.decode(await self._reader.readexactly(size))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ChannelClosed("the connection was closed") from error
        return message

    async def flush(self) -> None:
        """Wait until all that was sent is out of this process. Raises ChannelClosed."""
        try:
            await self._writer.drain()
        except OSError as error:
            raise ChannelClosed("the connection was closed") from error

    def close(self) -> None:
        self._writer.close()


def _answer(key: str, role: bytes, challenge: bytes) -> bytes:
    return hmac.digest(key.encode(), role + challenge, "sha256")
