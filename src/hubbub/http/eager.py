"""Runs a coroutine without a task: at once up to where it first has to wait, and on from there when that is done.

Most requests on the hot routes wait seldom or never, and a task costs more than such a request. Python 3.12 has the
first half of this as ``asyncio.eager_task_factory``. A coroutine run here has no current task: it may await futures and
what is made of futures alone (``asyncio.sleep``, ``run_in_executor``), but not ``asyncio.timeout`` and its like. Like a
task it has a context of its own, which is a new one, so that what is set in it is never another request's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

# The loop keeps futures alive, not who waits for them.
_running: set[_Running[Any]] = set()


def run(awaitable: Awaitable[T], done: Callable[[T | Exception], None]) -> None:
    """Run the coroutine and call ``done`` with its result or the exception it raised; at once when it never waits."""
    work = cast(Coroutine[Any, Any, T], awaitable)
    context = Context()
    try:
        waits_for = context.run(work.send, None)
    except StopIteration as stop:
        done(stop.value)
    except Exception as error:  # noqa: BLE001 - handed to the caller
        done(error)
    else:
        running = _Running(work, done, context)
        _running.add(running)
        running.wait(waits_for)


class _Running(Generic[T]):
    __slots__ = ("_context", "_done", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], done: Callable[[T | Exception], None], context: Context) -> None:
        self._work = work
        self._done = done
        self._context = context

    def wait(self, waits_for: Any) -> None:
        """Go on when the future is done; None is a bare yield, which waits for the next turn of the loop."""
        if waits_for is None:
            asyncio.get_running_loop().call_soon(self._step, context=self._context)
            return
        waits_for._asyncio_future_blocking = False  # what a task does, to say that it has seen the future
        waits_for.add_done_callback(self._step, context=self._context)

    def _step(self, _: object = None) -> None:
        """The future's result, or its exception, is fetched by the coroutine itself when it goes on.

        No variable keeps an error: with its traceback that would be a cycle, and all frames of the work would live
        until a garbage collection.
        """
        try:
            waits_for = self._work.send(None)
        except StopIteration as stop:
            _running.discard(self)
            self._done(stop.value)
        except Exception as error:  # noqa: BLE001 - handed to the caller
            _running.discard(self)
            self._done(error)
        else:
            self.wait(waits_for)
