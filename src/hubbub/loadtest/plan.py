"""The plan of a run: rates, duration, workers, and the kinds of requests."""

from __future__ import annotations

from math import ceil, floor

import msgspec

from hubbub.loadtest.profile import Profile, Stage

WARMUP_S = 5.0
PROGRESS_S = 5.0
WRITE = 0
READ = 1

_POINTS = 3600  # the most that are kept of how a run went
_GOLDEN = 0.6180339887498949


class Plan(msgspec.Struct, frozen=True):
    """``writes`` and ``reads`` are rates a second over all workers, at the level 1.0 of the stages."""

    writes: float
    reads: float
    workers: int
    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def interval(self) -> int:
        """Whole seconds of the run that make one point of how it went: 1 up to an hour, and more for a longer run."""
        return max(ceil(self.seconds / _POINTS), 1)

    @property
    def level(self) -> float:
        """The mean of the stages: what the run's targets are of the rates that were asked for."""
        return sum(stage.seconds * (stage.start + stage.end) / 2 for stage in self.stages) / self.seconds

    @property
    def targets(self) -> tuple[float, float]:
        """Writes and reads a second, over the whole run."""
        return self.writes * self.level, self.reads * self.level


class Schedule:
    """When each request of a phase is due, which worker sends it, and whether it writes. This is computed, not stored.

    Request number n (from 0) belongs to worker n mod workers. Generator ``index`` of ``count`` has the workers whose
    number leaves ``index`` when divided by ``count``; its own requests are counted from 0 as well (``turn`` and
    ``worker`` below), and all generators' together are the run's, each once.

    Whether a worker's j-th request is a write follows from j alone: over any stretch the share of writes is exact to
    one request, and each worker starts at another place in the pattern, so that writes spread evenly over time.
    """

    def __init__(self, plan: Plan, index: int = 0, count: int = 1) -> None:
        self.profile = Profile(plan.stages, plan.writes + plan.reads)
        self.workers = plan.workers
        self.total = round(self.profile.count)
        self.index = index
        self.count = count
        self.mine = len(range(index, plan.workers, count))
        self._share = plan.writes / (plan.writes + plan.reads)

    def due(self, worker: int, turn: int) -> float:
        """Seconds after the start at which the request number ``turn`` of this generator's ``worker`` is due."""
        return self.profile.due(turn * self.workers + worker * self.count + self.index)

    def due_by(self, second: float) -> int:
        """How many of this generator's requests are due by then."""
        due = min(int(self.profile.due_by(second)) + 1, self.total)
        turns, rest = divmod(due, self.workers)
        return turns * self.mine + len(range(self.index, rest, self.count))

    def kind(self, worker: int, turn: int) -> int:
        """WRITE or READ."""
        phase = (worker * self.count + self.index) * _GOLDEN % 1
        share = self._share
        return WRITE if floor((turn + 1) * share + phase) > floor(turn * share + phase) else READ
