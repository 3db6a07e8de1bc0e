"""How the load rises and falls over a run: stretches of a steady or evenly changing rate."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from math import inf, sqrt

import msgspec


class BadStages(ValueError):
    """The text is not a list of stages; the message says how to write one."""


class Stage(msgspec.Struct, frozen=True):
    """``seconds`` long; from the level ``start`` to ``end``, where 1.0 is the rate that was asked for."""

    seconds: float
    start: float
    end: float


_STAGE = re.compile(r"(\d+(?:\.\d+)?)s?:(\d+(?:\.\d+)?)%(?:-(\d+(?:\.\d+)?)%)?")


def parse_stages(text: str) -> tuple[Stage, ...]:
    """``30s:50%`` holds a level, ``10s:50%-200%`` moves from one to another; commas between them.

    Raises:
        BadStages
    """
    stages = []
    for part in text.split(","):
        found = _STAGE.fullmatch(part.strip())
        if found is None:
            raise BadStages(f"{part.strip()!r} is no stage: write 30s:100% to hold a level, 10s:50%-200% to move")
        start = float(found[2]) / 100
        stages.append(Stage(float(found[1]), start, float(found[3]) / 100 if found[3] else start))
    if not any(stage.seconds * (stage.start + stage.end) for stage in stages):
        raise BadStages("these stages send nothing: give one a length and a level")
    return tuple(stages)


def steady(seconds: float) -> tuple[Stage, ...]:
    return (Stage(seconds, 1.0, 1.0),)


def spike(seconds: float, factor: float) -> tuple[Stage, ...]:
    """The middle fifth of the run at ``factor`` times the rate."""
    return (Stage(seconds * 0.4, 1, 1), Stage(seconds * 0.2, factor, factor), Stage(seconds * 0.4, 1, 1))


class Profile:
    """A rate over time, and its integral both ways: how many are due by a time, and when the n-th is due.

    Invariant: ``_starts`` and ``_numbers`` have the second and the (fractional) count of requests at which each stage
    begins, and both rise; within a stage the count is numbers + rate * t + slope * t * t / 2.
    """

    def __init__(self, stages: Sequence[Stage], rate: float) -> None:
        self._starts: list[float] = []
        self._numbers: list[float] = []
        self._rates: list[tuple[float, float]] = []
        self.seconds = 0.0
        self.count = 0.0
        for stage in stages:
            if not stage.seconds:
                continue
            self._starts.append(self.seconds)
            self._numbers.append(self.count)
            self._rates.append((stage.start * rate, (stage.end - stage.start) * rate / stage.seconds))
            self.seconds += stage.seconds
            self.count += rate * stage.seconds * (stage.start + stage.end) / 2

    def due_by(self, second: float) -> float:
        """How many requests are due by then."""
        second = min(second, self.seconds)
        at = bisect_right(self._starts, second) - 1
        rate, slope = self._rates[at]
        passed = second - self._starts[at]
        return self._numbers[at] + rate * passed + slope * passed * passed / 2

    def due(self, number: float) -> float:
        """The second at which request ``number`` (from 0) is due."""
        at = bisect_right(self._numbers, number) - 1
        rate, slope = self._rates[at]
        missing = number - self._numbers[at]
        if not slope:
            return self._starts[at] + (missing / rate if rate else 0.0)
        # The root of slope/2 t² + rate t - missing, written so that nothing cancels when the slope is small.
        root = sqrt(max(rate * rate + 2 * slope * missing, 0.0))
        return self._starts[at] + (2 * missing / (rate + root) if rate + root else 0.0)

    def steady(self, number: float) -> tuple[float, float, float, float] | None:
        """The stage of request ``number``: the second and the number at which it begins, the number at which the next
        one does, and the rate. None if the rate is not steady."""
        at = bisect_right(self._numbers, number) - 1
        rate, slope = self._rates[at]
        if slope or not rate:
            return None
        return self._starts[at], self._numbers[at], (*self._numbers, inf)[at + 1], rate
