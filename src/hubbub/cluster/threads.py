"""Threads for work that blocks: how much of it waits is bounded, and so is how long anybody waits for its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from hubbub.chat.errors import Unavailable

T = TypeVar("T")

_WAITING_PER_THREAD = 16
_RESTS_S = 1.0  # how long a server that did not answer in time is not asked


class Threads:
    """``answer_s`` is how long an answer may take. ``most_waiting`` is how much work may wait or run at once."""

    def __init__(self, count: int, name: str, *, answer_s: float) -> None:
        self.most_waiting = count * _WAITING_PER_THREAD
        self._pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix=name)
        self._answer_s = answer_s
        self._waiting = 0
        self._rests_until = 0.0

    def soon(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``work`` on a thread. Raises Unavailable, also when it takes too long; it may then still be running."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if self._waiting >= self.most_waiting or time.monotonic() < self._rests_until:
            answer.set_exception(Unavailable("The database does not answer. Try again a little later.", retry_after=2))
            return answer
        self._waiting += 1
        running = self._pool.submit(work)
        timer = loop.call_later(self._answer_s, self._late, answer, running)

        def done(_: ThreadFuture[T]) -> None:
            loop.call_soon_threadsafe(finish)

        def finish() -> None:
            self._waiting -= 1
            timer.cancel()
            if answer.done():
                return
            if running.cancelled():
                answer.set_exception(Unavailable("This process is stopping. Try again.", retry_after=1))
            elif (error := running.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(running.result())

        running.add_done_callback(done)
        return answer

    def _late(self, answer: asyncio.Future[Any], running: ThreadFuture[Any]) -> None:
        """Wait no longer for the answer. Work that has not begun never does: nobody waits for it."""
        if not answer.done():
            self._rests_until = time.monotonic() + _RESTS_S
            answer.set_exception(Unavailable("The database does not answer in time.", retry_after=2))
        running.cancel()

    def close(self) -> None:
        """Finish the work that has begun. Who waits for other work gets Unavailable. Blocks."""
        self._pool.shutdown(cancel_futures=True)
