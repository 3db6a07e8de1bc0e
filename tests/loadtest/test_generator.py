"""A generator of load as a process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys

import pytest

from hubbub.loadtest.channel import Channel
from hubbub.loadtest.fleet import KEY_VARIABLE
from hubbub.loadtest.generator import Unconnected, generate


async def policy(*before: str) -> int:
    """How the system schedules a generator, started behind this command, when it has joined."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        await channel.prove("key", coordinator=True)
        found.set_result(os.sched_getscheduler(process.pid))
        channel.close()

    server = await asyncio.start_server(joined, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    command = [*before, sys.executable, "-m", "hubbub", "perftest", "join", f"127.0.0.1:{port}"]
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | {KEY_VARIABLE: "key"})
    async with asyncio.timeout(60):
        try:
            return await found
        finally:
            server.close()
            if found.done():
                await process.wait()
            else:
                process.kill()


async def test_a_generator_does_not_interrupt_the_service_beside_it() -> None:
    assert await policy() == os.SCHED_BATCH


async def test_a_generator_keeps_the_policy_that_it_was_started_with() -> None:
    assert await policy("chrt", "--idle", "0") == os.SCHED_IDLE


async def test_a_generator_runs_where_the_system_tells_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with musl (Alpine), whose functions for it exist, and always fail."""

    def missing(*_: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("hubbub.loadtest.generator._allow_sockets", lambda: None)  # it would be for this process
    monkeypatch.setattr(os, "sched_getscheduler", missing)
    monkeypatch.setattr(os, "sched_setscheduler", missing)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Unconnected):
        await generate("127.0.0.1", port, "key")
