"""Rule 8: whatever Redis says about itself, the client goes on trying."""

from __future__ import annotations

import asyncio

import hiredis
import pytest

from hubbub.cluster.redis.connection import RedisClient

_SAID = b"run_id:abc\r\nmaster_replid:def\r\nmaxmemory:0\r\nused_memory:1\r\n"


class Speaker:
    """A server that answers every command with the same text."""

    def __init__(self) -> None:
        self.says = b""
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(65536):
            commands.feed(data)
            while commands.gets() is not False:
                self.asked += 1
                writer.write(b"$%d\r\n%b\r\n" % (len(self.says), self.says))
        writer.close()


@pytest.mark.parametrize(
    "says",
    [b"", b"# Server", _SAID.replace(b"maxmemory:0", b"maxmemory:much"), _SAID.replace(b"abc", b"\xff\r\nx")],
    ids=["nothing", "no fields", "no number", "no text"],
)
@pytest.mark.parametrize("when", ["at first", "later"])
async def test_a_server_that_does_not_say_what_it_is_is_asked_again(says: bytes, when: str) -> None:
    speaker = Speaker()
    server = await asyncio.start_server(speaker.serve, "127.0.0.1", 0)
    speaker.says = says if when == "at first" else _SAID
    client = RedisClient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", {})
    if when == "later":
        assert await client.connected(5)
        speaker.says = says
    async with asyncio.timeout(5):
        before = speaker.asked
        while speaker.asked < before + 3:
            await asyncio.sleep(0.02)
    speaker.says = _SAID
    assert await client.connected(5)
    async with asyncio.timeout(5):
        while client.data_set != b"def":
            await asyncio.sleep(0.02)
    await client.close()
    server.close()
