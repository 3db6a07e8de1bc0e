"""The event loop's time, shared out: of what is asked for at once a little is begun in each turn of the loop, and who
has had least of late goes first. So nobody waits for all that somebody else asks for, over however many connections.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from time import perf_counter, thread_time
from typing import NamedTuple

# Of each turn of the loop, in which requests are begun; the last may take longer. It is more than a turn takes under
# the load that the service is made for: to wait costs a request a tenth of its CPU.
TURN_S = 0.02
UNKNOWN_S = 0.005  # counted for work that goes on after it has begun, as how long it takes is not known
_REMEMBERED = 10_000


class _Work(NamedTuple):
    """It counts as ``least_s`` at the least: what it begins may go on when it has returned."""

    begin: Callable[[], None]
    least_s: float


class Turns:
    """Owners take turns by what they have had, in seconds (a weighted fair queue, where all weigh the same).

    ``_row`` has the owners who wait, by what they have had; ``_work`` what each waits with, in the order in which it
    came. ``_fair`` is what an owner has had who was always served as the others were: one who comes has had that at the
    least, so that nobody saves up.

    An owner has had the CPU time that its work took, not the time on the clock: on a busy machine the process may wait
    for the CPU longer than the work takes, and the owner would wait for that again. Once nobody waits, all that anybody
    has had is forgotten. Work is begun at once while the Turns are ``free``: this turn of the loop has time left, and
    nobody waits.

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
        """Do the work: at once where they are free."""
        if self.free:
            self._do(work, least_s)
        else:
            self._wait(owner(), _Work(work, least_s))

    async def turn(self, owner: Hashable, least_s: float) -> None:
        """Wait for the owner's turn at something that takes so long."""
        if not self.free:
            called = asyncio.get_running_loop().create_future()
            self._wait(owner, _Work(lambda: None if called.done() else called.set_result(None), least_s))
            await called
        else:
            self.spend(least_s)

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
        """Count what was begun at once, and took so long."""
        self._spent += seconds
        self.free = self._spent < TURN_S and not self._row
        if not self._noted:
            self._noted = True
            asyncio.get_running_loop().call_soon(self._next)

    def _do(self, work: Callable[[], None], least_s: float) -> None:
        begun = perf_counter()
        try:
            work()
        finally:
            self.spend(max(perf_counter() - begun, least_s))

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
