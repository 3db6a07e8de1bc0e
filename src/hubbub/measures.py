"""Histograms that cost the path of a message next to nothing: a search among a dozen bounds and two additions.

prometheus_client's own take a lock and a lookup of labels for each observation. These are handed to it when it is asked
for the figures, see http.metrics.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMMANDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Histogram:
    """``series`` has, for each set of label values, how many observations fell into each bucket (up to and including
    its bound, the last has no bound), and then their sum. One thread observes; any may read, and may see an observation
    half counted.
    """

    def __init__(self, name: str, help_: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help_
        self.bounds = tuple(bounds)
        self.labels = tuple(labels)
        self.series: dict[tuple[str | int, ...], list[float]] = {}

    def observe(self, value: float, labels: tuple[str | int, ...] = ()) -> None:
        counts = self.series.get(labels)
        if counts is None:
            counts = self.series[labels] = [0] * (len(self.bounds) + 2)
        counts[bisect_left(self.bounds, value)] += 1
        counts[-1] += value


class WriteMeasures:
    """What writers measure. ``age_s`` is how long the oldest write of the latest batch had waited."""

    def __init__(self) -> None:
        self.batches = Histogram("hubbub_writer_batch_commands", "Commands stored in one batch.", COMMANDS)
        self.commits = Histogram("hubbub_writer_commit_seconds", "Time to store a batch on disk, in seconds.", SECONDS)
        self.applied = 0
        self.retries = 0
        self.dead = 0
        self.age_s = 0.0

    def stored(self, commands: int, seconds: float, age_s: float) -> None:
        self.batches.observe(commands)
        self.commits.observe(seconds)
        self.applied += commands
        self.age_s = age_s


def waited_s(command: object) -> float:
    """For how long it has waited by now; 0 when it does not say when it was sent."""
    created_at: int | None = getattr(command, "created_at", None)
    return 0.0 if created_at is None else max(time.time() - created_at / 1000, 0.0)
