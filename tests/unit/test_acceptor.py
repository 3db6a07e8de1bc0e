"""Clients that wait are accepted together, but not so many at once that the event loop is blocked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import uvloop

from hubbub.http import acceptor
from hubbub.http.acceptor import Acceptor
from hubbub.http.server import listen


def run(scene: Callable[[ExitStack], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        runner.run(scene(stack))


def connect(listener: socket.socket, count: int, stack: ExitStack) -> None:
    for _ in range(count):
        stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10))


async def accepted(count: int, stack: ExitStack) -> list[int]:
    """Connect this many clients at once and return the turn of the loop in which each was accepted."""
    listener = listen("127.0.0.1", 0)
    turn = 0
    taken: list[int] = []

    def take(client: socket.socket) -> None:
        stack.enter_context(client)
        taken.append(turn)

    accepting = Acceptor(listener, 100, take)
    connect(listener, count, stack)
    while len(taken) < count:
        turn += 1
        await asyncio.sleep(0)
    accepting.stop()
    return taken


def test_all_waiting_clients_are_accepted_in_one_turn_of_the_loop() -> None:
    async def scene(stack: ExitStack) -> None:
        assert len(set(await accepted(50, stack))) == 1

    run(scene)


def test_a_flood_of_clients_leaves_the_loop_to_others(monkeypatch: Any) -> None:
    monkeypatch.setattr(acceptor, "_MOST_AT_ONCE", 5)

    async def scene(stack: ExitStack) -> None:
        taken = await accepted(20, stack)
        assert max(taken.count(each) for each in taken) == 5

    run(scene)


def test_clients_that_connected_before_the_stop_are_accepted() -> None:
    async def scene(stack: ExitStack) -> None:
        listener = listen("127.0.0.1", 0)
        taken: list[socket.socket] = []
        accepting = Acceptor(listener, 200, lambda client: taken.append(stack.enter_context(client)))
        connect(listener, 120, stack)
        accepting.stop()
        assert len(taken) == 120
        assert listener.fileno() == -1

    run(scene)
