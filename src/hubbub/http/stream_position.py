"""How far a listener of a chat has been sent its messages, in a few numbers, however long the chat is.

The position is the highest number that was sent, and the numbers below it that are *missing*: given out before it, and
not seen yet. An event's id is the number below the lowest that is missing, or the highest that was sent where none is.

Why a listener that comes back with the id it had last misses nothing that was acknowledged:

1. A chat gives its numbers in ascending order. A number is *open* from when it is given until its message is shown, and
   a message is shown before it is acknowledged. A number that is neither open nor shown is gone: refused, or deleted.
   It never comes again.
2. A reading (``View.messages`` above a number, ``View.numbered``) lists the open numbers before it looks at the shown
   messages. So of the numbers up to the last that it covers, each that it finds neither open nor shown is gone.
3. The position passes a number in only three ways: its message was sent; a reading that may not lag found it gone; or
   it is held as missing, which keeps the id below it. A live message that leaves a gap makes the gap's numbers missing.
   A reading that may lag is sent up to its first gap only, so it passes nothing.
4. Missing numbers are looked up until they were sent or are gone. So no id waits for a number that is gone.
5. A number that stays open (its process was killed) is given up after ``GIVEN_UP_S``. By then each write that was sent
   to the broker is confirmed or refused (5 s, and a process's lease of 3 s). If a process was frozen for longer, its
   message has been stored in the meantime, and a reading finds it.

Embedded, commands are applied in the order of their numbers, so no number is ever open there.

A message is sent twice to a listener that comes back while an earlier number is open: in a cluster, this is possible
for milliseconds, or for half a minute when the process that had the number was killed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from time import monotonic

GIVEN_UP_S = 30.0
MOST_MISSING = 500  # more numbers are open in one chat only for moments: the listener waits
_REMEMBERED = 100


class StreamPosition:
    """The position of one listener in one chat. Invariant: each message that was acknowledged up to ``id`` was sent.
    ``_missing`` is ascending, and has the time at which each number was first missed."""

    def __init__(self, after: int) -> None:
        self._high = after
        self._missing: dict[int, float] = {}
        self._given_up: deque[int] = deque(maxlen=_REMEMBERED)

    @property
    def id(self) -> int:
        return next(iter(self._missing)) - 1 if self._missing else self._high

    @property
    def missing(self) -> list[int]:
        return list(self._missing)

    @property
    def missing_since(self) -> float | None:
        """When the oldest was first missed."""
        return min(self._missing.values(), default=None)

    def live(self, number: int) -> bool | None:
        """Whether to send a message that was just shown; from now on it counts as sent. None: too many numbers before
        it are missing, so the chat has to be read.
        """
        if number <= self._high:
            return self._was_missing(number)
        gap = range(self._high + 1, number)
        if len(self._missing) + len(gap) > MOST_MISSING:
            return None
        self._miss(gap)
        self._high = number
        return True

    def read(self, number: int, still_open: deque[int], *, sure: bool) -> bool | None:
        """As ``live``, for the next message of a reading. A ``sure`` reading may not lag. ``still_open`` are the
        reading's open numbers; those below this message's are removed. None: neither this message nor those that follow
        can be sent yet.
        """
        if number <= self._high:
            return self._was_missing(number)
        before = []
        while still_open and still_open[0] < number:
            before.append(still_open.popleft())
        before = [each for each in before if each > self._high]
        explained = sure or number == self._high + 1
        if not explained or len(self._missing) + len(before) > MOST_MISSING:
            return None
        self._miss(before)
        self._high = number
        return True

    def looked_for(self, numbers: Collection[int], still_open: Collection[int]) -> None:
        """To be called with the missing numbers that a sure reading did not find: those that are not open are gone."""
        until = monotonic() - GIVEN_UP_S
        for number in numbers:
            since = self._missing.get(number)
            if since is None:
                continue
            if number not in still_open:
                del self._missing[number]
            elif since < until:
                del self._missing[number]
                self._given_up.append(number)

    def _miss(self, numbers: Collection[int]) -> None:
        now = monotonic()
        for number in numbers:
            self._missing[number] = now

    def _was_missing(self, number: int) -> bool:
        if number in self._given_up:
            self._given_up.remove(number)
            return True
        return self._missing.pop(number, None) is not None
