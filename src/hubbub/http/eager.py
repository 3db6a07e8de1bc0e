"""Runs a coroutine at once, up to where it first has to wait; only then does it become a task.

Most requests on the hot routes never wait, and a task costs more than such a request. Python 3.12 has this as
``asyncio.eager_task_factory``; this is the part of it that Python 3.11 lacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")

_running: set[asyncio.Task[None]] = set()  # the loop keeps only weak references to its tasks


def run(awaitable: Awaitable[T], done: Callable[[T | Exception], None]) -> None:
    """Run the coroutine and call ``done`` with its result or the exception it raised; at once when it never waits."""
    work = cast(Coroutine[Any, Any, T], awaitable)
    try:
        waits_for = work.send(None)
    except StopIteration as stop:
        done(stop.value)
    except Exception as error:  # noqa: BLE001 - handed to the caller
        done(error)
    else:
        task = asyncio.get_running_loop().create_task(_finish(work, waits_for, done))
        _running.add(task)
        task.add_done_callback(_running.discard)


async def _finish(work: Coroutine[Any, Any, T], waits_for: Any, done: Callable[[T | Exception], None]) -> None:
    result: T | Exception
    try:
        result = await _resume(work, waits_for)
    except Exception as error:  # noqa: BLE001 - handed to the caller
        result = error
    done(result)


@coroutine
def _resume(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Hand the task what the coroutine already waits for, then all that follows, as ``await`` would."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # noqa: BLE001 - thrown on into the coroutine, as await does
            step: Callable[[Any], Any] = work.throw
            argument: Any = error
        else:
            step = work.send
            argument = sent
        try:
            waits_for = step(argument)
        except StopIteration as stop:
            return cast(T, stop.value)
