"""Measure how long one callback blocks the event loop, in CPU time. All other clients wait that long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass
class Holds:
    """The callbacks that were seen: their ``count``, and the longest one, ``what``, with its CPU time in the thread."""

    longest_s: float = 0.0
    what: str = ""
    count: int = 0


@contextmanager
def holds() -> Iterator[Holds]:
    """Watch every callback of asyncio's own loops, including each step of a task. uvloop's callbacks are not seen."""
    seen = Holds()
    run: Any = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        took = time.thread_time() - begun
        seen.count += 1
        if took > seen.longest_s:
            seen.longest_s, seen.what = took, repr(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", timed)
        yield seen
