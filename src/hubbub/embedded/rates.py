"""The requests of each user, counted over all processes that serve."""

from __future__ import annotations

import mmap

_ROWS = 2**20
_WORD = 8  # bytes


class SharedRates:
    """A table in memory that processes share when they are forked, see http.limits.Rates.

    A user has a row: for each process, how many requests of the user it has let in, and when it knew the user's bucket
    to be full again (ns, monotonic, a clock that is the same in all processes). A process writes its own words alone,
    each at once, so there is no lock, and no count is lost. It writes the count first: who reads the time and then the
    counts finds no request in the time that is not in the counts.

    Users whose ids differ by a multiple of 2**20 have the same row: they share one rate. A row takes memory once its
    user, or one of the next few, has sent a request.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._words = memoryview(mmap.mmap(-1, _ROWS * 2 * processes * _WORD)).cast("Q")

    def of(self, process: int) -> ProcessRates:
        """What the process uses; the first one is 0."""
        return ProcessRates(self._words, self._processes, process)


class ProcessRates:
    """The table as one process uses it, see http.limits.Rates."""

    def __init__(self, words: memoryview[int], processes: int, process: int) -> None:
        self._words = words
        self._processes = processes
        self._process = process

    def counted(self, user_id: int) -> int:
        row = user_id % _ROWS * 2 * self._processes
        return sum(self._words[row : row + self._processes])

    def full_at(self, user_id: int) -> int:
        row = (user_id % _ROWS * 2 + 1) * self._processes
        return max(self._words[row : row + self._processes])

    def count(self, user_id: int, full_at: int) -> None:
        count = user_id % _ROWS * 2 * self._processes + self._process
        self._words[count] += 1
        self._words[count + self._processes] = full_at
