"""Shares the event loop's time between users: each turn of the loop begins a little of the waiting work, and the owner
who has had least of late goes first. So no client waits for everything that another asks for, over however many
connections.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from time import perf_counter, thread_time
from typing import NamedTuple

# The time in each turn of the loop in which requests are begun; the last may take longer. It is more than a turn takes
# under the load that the service is made for, because waiting costs a request a tenth of its CPU.
TURN_S = 0.02
UNKNOWN_S = 0.005  # counted for work that goes on after it has begun, as how long it takes is not known
_REMEMBERED = 10_000


class _Work(NamedTuple):
    """Work that waits. It counts as ``least_s`` at least, because what it begins may continue after it has returned."""

    begin: Callable[[], None]
    least_s: float


class Turns:
    """Owners take turns by what they have had, in seconds (a weighted fair queue, where all weigh the same).

    ``_row`` has the owners who wait, ordered by what they have had; ``_work`` has each owner's waiting work, in the
    order in which it came. ``_fair`` is what an owner would have had who was always served like the others: a new owner
    counts as having had at least that, so that nobody saves up time.

    An owner has had the CPU time that its work took, not the time on the clock: on a busy machine the process may wait
    for the CPU longer than the work takes, and the owner would wait for that a second time. Once nobody waits,
    everything that owners have had is forgotten. Work is begun at once while the Turns are ``free``: this turn of the
    loop has time left, and nobody waits.

    Invariant: while somebody waits, or something was begun in this turn of the loop, ``_next`` runs in the next.
    """

    def __init__(self) -> None:
        self.free = True
        self._spent = 0.0  # in this turn of the loop
        self._noted = False
        self._row: list[tuple[float, int, Hashable]] = []
        self._work: dict[Hashable, deque[_Work]] = {}
        self._had: dict[Hashable, float] = {}
        self._fair = 0.0
        self._count = itertools.count()

    def begin(self, work: Callable[[], None], owner: Callable[[], Hashable], least_s: float = 0.0) -> None:
        """Do the work: at once if the Turns are free, else in its owner's turn."""
        if self.free:
            self._do(work, least_s)
        else:
            self._wait(owner(), _Work(work, least_s))

    def turn(self, owner: Hashable, least_s: float) -> asyncio.Future[None]:
        """The owner's turn to do something that takes ``least_s``: done when it has come. Who does not want it any more
        may set a result, or cancel it."""
        called = asyncio.get_running_loop().create_future()
        if self.free:
            self.spend(least_s)
            called.set_result(None)
        else:
            self._wait(owner, _Work(lambda: None if called.done() else called.set_result(None), least_s))
        return called

    def _wait(self, owner: Hashable, work: _Work) -> None:
        theirs = self._work.get(owner)
        self.free = False
        if theirs is None:
            self._work[owner] = deque((work,))
            self._line_up(owner, max(self._had.get(owner, 0.0), self._fair))
        else:
            theirs.append(work)

    def _line_up(self, owner: Hashable, had: float) -> None:
        heappush(self._row, (had, next(self._count), owner))

    def spend(self, seconds: float) -> None:
        """Count work that was begun in this turn of the loop and took ``seconds``."""
        self._spent += seconds
        self.free = self._spent < TURN_S and not self._work
        if not self._noted:
            self._noted = True
            asyncio.get_running_loop().call_soon(self._next)

    def _do(self, work: Callable[[], None], least_s: float) -> None:
        begun, counted = perf_counter(), self._spent
        try:
            work()
        finally:
            # What the work has counted itself, as requests do that it reads and begins, counts once.
            took = max(perf_counter() - begun, least_s)
            self.spend(max(took - (self._spent - counted), 0.0))

    def _next(self) -> None:
        """A turn of the loop begins."""
        self._noted, self.free, self._spent = False, not self._row, 0.0
        while self._row and self._spent < TURN_S:
            had, _, owner = heappop(self._row)
            theirs = self._work[owner]
            work = theirs.popleft()
            if not theirs:
                del self._work[owner]
            begun = thread_time()
            try:
                self._do(*work)
            finally:
                took = max(thread_time() - begun, work.least_s)
                self._fair = max(self._fair, had) + took / (1 + len(self._row))
                self._remember(owner, had + took)
                if theirs:
                    self._line_up(owner, had + took)
        if not self._row:
            self.free = self._spent < TURN_S
            self._had.clear()
            self._fair = 0.0

    def _remember(self, owner: Hashable, had: float) -> None:
        self._had[owner] = had
        if len(self._had) > _REMEMBERED:
            self._had = {owner: had for owner, had in self._had.items() if had > self._fair}
            if len(self._had) > _REMEMBERED // 2:
                self._had.clear()
