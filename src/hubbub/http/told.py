"""How far a listener of a chat has been told, in a few numbers, however long the chat is.

The position is the highest number that was told, and the numbers below it that are *missing*: given to somebody before
it, and not seen yet. An event's id is the number below the lowest that is missing, and the highest told where none is.

Why a listener that comes back with the id it had last misses nothing that was acknowledged:

1. A chat's numbers are given ascending. A number is *open* from when it is given until its message is shown, and what
   is acknowledged was shown before. One that is neither open nor shown is gone: refused, or deleted. It never comes
   again.
2. A reading (``View.messages`` above a number, ``View.numbered``) says what is open before it looks at what is shown.
   So of the numbers up to the last that it covers, each that it calls neither open nor shown is gone.
3. The position passes a number in three ways alone: its message was told; a reading that may not lag found it gone; or
   it is kept as missing, which holds the id below it. A live message that leaves a gap makes the gap's numbers missing.
   A reading that may lag is told up to its first gap, so it passes nothing.
4. What is missing is asked for by its number until it was told or is gone. So no id waits for a number that is gone.
5. A number that stays open (its process was killed) is passed over after ``GIVEN_UP_S``. By then each write that was
   sent is confirmed or refused (5 s, and a process's lease of 3 s); a process that was frozen for longer has had its
   message stored meanwhile, where a reading finds it.

Embedded, commands are applied in the order of their numbers, so nothing is ever open there.

A message is told twice to a listener that comes back while an earlier number is open: for milliseconds, in a cluster;
for half a minute where a process was killed that had been given one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from time import monotonic

GIVEN_UP_S = 30.0
MOST_MISSING = 500  # more of them are under way in one chat only for moments: the listener waits
_REMEMBERED = 100


class Told:
    """Invariant: all that was acknowledged up to ``id`` was told. ``_missing`` is ascending, with when each was first
    missed."""

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
        """Whether a message that was just shown is to be told, as it is from now on. None: the chat has to be read, too
        many before it are missing.
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
        """As ``live``, for the next message of a reading, which may not lag if it is ``sure``. ``still_open`` are its
        open numbers, of which those below this message's are taken out. None: neither this one nor what follows can be
        told yet.
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
        """A sure reading did not find these missing numbers: those that are not open are gone."""
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
