"""TCP proxies that a test can stall, cut, and point at another server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from hubbub.loadtest.servers import free_port


class Proxies:
    """The thread in which the proxies run; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Proxies:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def call(self, work: Callable[[], None]) -> None:
        async def once() -> None:
            work()

        self.run(once())

    def to(self, target: int) -> Proxy:
        """Start a proxy that forwards everything to this port."""
        proxy = Proxy(self, target)
        self.run(proxy.listen())
        return proxy


class Proxy:
    """A TCP proxy. What it receives while it holds arrives on release, also if its sender has gone meanwhile. What is
    under way when it cuts is lost.
    """

    def __init__(self, proxies: Proxies, target: int) -> None:
        self._proxies = proxies
        self.first = self._target = target
        self._cut = False
        self._connections: set[asyncio.Task[None]] = set()
        self._may_ask, self._may_answer = asyncio.Event(), asyncio.Event()
        self._may_ask.set()
        self._may_answer.set()
        self.port = free_port()

    async def listen(self) -> None:
        await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    # For tests -------------------------------------------------------------------------------------------------------

    def hold(self, *, questions: bool = True, answers: bool = True) -> None:
        """Deliver nothing until ``release``, from one side or both. Connections stay open; new ones are accepted."""

        def now() -> None:
            if questions:
                self._may_ask.clear()
            if answers:
                self._may_answer.clear()

        self._proxies.call(now)

    def release(self) -> None:
        def now() -> None:
            self._may_ask.set()
            self._may_answer.set()

        self._proxies.call(now)

    def reset(self) -> None:
        """Break all connections."""
        self._proxies.call(self._break)

    def cut(self) -> None:
        """Break all connections, and each new one until ``fix``."""

        def now() -> None:
            self._cut = True
            self._break()

        self._proxies.call(now)

    def fix(self) -> None:
        def now() -> None:
            self._cut = False

        self._proxies.call(now)

    def point(self, target: int) -> None:
        """Break all connections; a client that reconnects reaches another server."""

        def now() -> None:
            self._target = target
            self._break()

        self._proxies.call(now)

    # Connections -----------------------------------------------------------------------------------------------------

    def _break(self) -> None:
        for connection in self._connections:
            connection.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        ends = [writer]
        try:
            if not self._cut:
                there = await asyncio.open_connection("127.0.0.1", self._target)
                ends.append(there[1])
                await asyncio.gather(
                    _carry(reader, there[1], self._may_ask), _carry(there[0], writer, self._may_answer)
                )
        except (OSError, asyncio.CancelledError):
            pass  # both ends are reset below, whichever broke
        finally:
            self._connections.discard(task)
            for end in ends:
                _reset(end)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may: asyncio.Event) -> None:
    """Read at once, and send while sending is allowed."""
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def take() -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                received.put_nowait(data)
        received.put_nowait(b"")

    taking = asyncio.create_task(take())
    try:
        while data := await received.get():
            await may.wait()
            writer.write(data)
            await writer.drain()
        await may.wait()
        writer.write_eof()
    finally:
        taking.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
