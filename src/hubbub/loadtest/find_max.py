"""Searches for the highest rate that meets the goals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import sqrt

import msgspec

_FIRST = 0.5  # of the rates asked for
_STEP = 2.0
_CLOSE = 1.05  # the highest rate that held and the lowest that did not are then this close
_LOWEST, _HIGHEST = 1 / 64, 64.0
_AGREE = 2  # trials of up to three decide
_SURE = 3  # trials at the rate that is named in the end


class Trial(msgspec.Struct, frozen=True):
    """One run at ``factor`` times the target rates; ``why`` names the goals that were missed."""

    factor: float
    writes: float
    reads: float
    held: bool
    writes_p99_ms: float
    reads_p99_ms: float
    why: str = ""
    limited: bool = False  # by the generator, so that it says nothing of the service


class Found(msgspec.Struct, frozen=True):
    """``factor`` is the highest that held, 0 when none did; ``failed`` the lowest above it that did not, if any.

    ``held_of`` has how many of the trials at ``factor`` held, and how many there were; ``failed_of`` likewise how many
    of those at ``failed`` did not.
    """

    factor: float
    held_of: tuple[int, int]
    failed: float | None
    failed_of: tuple[int, int]
    trials: list[Trial]
    limited: bool


async def find_max(attempt: Callable[[float], Awaitable[Trial]]) -> Found:
    """Doubles the rate until it fails, then halves the distance, in ratios, until it is 5 %; then makes sure.

    A rate holds, or does not, when two of up to three trials say so: on a machine shared with others one trial says
    little. What does not hold in the last trials gives way to a rate 5 % lower. Ends when the generator is the limit.
    """
    trials: list[Trial] = []

    async def holds(factor: float, agreed: int = _AGREE) -> bool:
        while True:
            of_this = [trial.held for trial in trials if trial.factor == factor]
            held, failed = sum(of_this), len(of_this) - sum(of_this)
            if max(held, failed) >= _AGREE and len(of_this) >= agreed:
                return held > failed
            trials.append(await attempt(factor))
            if trials[-1].limited:
                return False

    low, high, factor = 0.0, 0.0, _FIRST
    while not high and factor <= _HIGHEST:  # upwards while it holds
        if await holds(factor):
            low, factor = factor, factor * _STEP
        else:
            high = factor
    while high and not low and high > _LOWEST and not trials[-1].limited:  # downwards when not even the first held
        if await holds(high / _STEP):
            low = high / _STEP
        else:
            high /= _STEP
    while low and high and high / low > _CLOSE and not trials[-1].limited:
        middle = sqrt(low * high)
        if await holds(middle):
            low = middle
        else:
            high = middle
    while low >= _LOWEST and not trials[-1].limited and not await holds(low, _SURE):
        high, low = low, low / _CLOSE
    return _found(low if low >= _LOWEST else 0.0, high or None, trials)


def _found(low: float, high: float | None, trials: list[Trial]) -> Found:
    at_low = [trial.held for trial in trials if trial.factor == low]
    at_high = [trial.held for trial in trials if trial.factor == high]
    return Found(
        factor=low,
        held_of=(sum(at_low), len(at_low)),
        failed=high,
        failed_of=(len(at_high) - sum(at_high), len(at_high)),
        trials=trials,
        limited=any(trial.limited for trial in trials),
    )
