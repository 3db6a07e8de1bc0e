"""Run many schedules, on up to two cores."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.model.profiles import PROFILES, Profile
from tests.model.rules import ALL, Rules
from tests.model.schedule import run_seed

PROCESSES = min(2, os.cpu_count() or 1)
PIECE = 2000


class Found(NamedTuple):
    """The first violation that was found."""

    seed: int
    kind: str


class Summary(NamedTuple):
    """The results of many schedules. ``broken`` has the seeds that failed, and what they violated."""

    counts: Counter[str]
    faults: Counter[str]
    broken: list[tuple[int, str]]


def find(
    rules: Rules, profiles: tuple[Profile, ...], schedules: int, kind: str | None = None, first: int = 0
) -> Found | None:
    """Run seeds below ``schedules`` until there is a violation, or one of this kind. The seed ``first`` runs before the
    others: a test gives the one found last time, and need not search again.
    """
    for seed in (first, *range(schedules)):
        violation = run_seed(seed, rules, profiles).violation
        if violation is not None and kind in (None, violation.kind):
            return Found(seed, violation.kind)
    return None


def summary(base: int, schedules: int) -> Summary:
    """Run seeds from ``base``, with every rule, under all profiles in turn."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        starts = range(base, base + schedules, PIECE)
        ends = [min(start + PIECE, base + schedules) for start in starts]
        whole = Summary(Counter(), Counter(), [])
        for piece in pool.map(_piece, starts, ends):
            whole.counts.update(piece.counts)
            whole.faults.update(piece.faults)
            whole.broken.extend(piece.broken)
    return whole


def _piece(start: int, end: int) -> Summary:
    piece = Summary(Counter(), Counter(), [])
    counts = piece.counts
    for seed in range(start, end):
        violation, world = run_seed(seed, ALL, PROFILES)
        counts["schedules"] += 1
        counts["steps"] += world.now
        counts["acknowledged"] += world.checker.acks
        counts["not acknowledged"] += world.checker.unacked
        counts["reads checked"] += world.checker.reads
        piece.faults.update(world.faults)
        if violation is not None:
            piece.broken.append((seed, str(violation)))
    return piece
