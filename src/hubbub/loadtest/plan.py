"""What a run is: how much, how long, by how many."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

WARMUP_S = 5.0
PROGRESS_S = 5.0
WRITE = 0
READ = 1

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Plan:
    """``writes`` and ``reads`` are rates a second over all workers; durations are in seconds."""

    writes: int
    reads: int
    duration: int
    workers: int

    @property
    def rate(self) -> int:
        return self.writes + self.reads


class Schedule:
    """When each request of a phase is due, and what it is. Pure arithmetic: nothing is stored per request.

    Request number n (from 0) is due n / rate seconds after the start and belongs to worker n mod workers. Whether a
    worker's j-th request is a write follows from j alone: over any stretch the share of writes is exact to one request,
    and each worker starts at another place in the pattern, so that writes spread evenly over time as well.
    """

    def __init__(self, plan: Plan, duration: float) -> None:
        self.workers = plan.workers
        self.rate = plan.rate
        self.total = int(plan.rate * duration)
        self._share = plan.writes / plan.rate

    def due(self, number: int) -> float:
        """Seconds after the start."""
        return number / self.rate

    def kind(self, number: int) -> int:
        """WRITE or READ."""
        turn, worker = divmod(number, self.workers)
        phase = worker * _GOLDEN % 1
        share = self._share
        return WRITE if floor((turn + 1) * share + phase) > floor(turn * share + phase) else READ
