"""The plan of a run: rates, duration, workers, and the kinds of requests."""

from __future__ import annotations

from math import ceil

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
    """When each request of a phase is due, and which worker sends it. This is computed, not stored.

    Request number n (from 0) belongs to worker n mod workers. Generator ``index`` of ``count`` has the workers whose
    number leaves ``index`` when divided by ``count``; its own workers are counted from 0 as well, and all generators'
    requests together are the run's, each once. The phase begins at ``start`` on the clock.

    The stage that was asked for last is kept, as it is nearly always that of the next request, too: from number
    ``first``, which is due at ``begin``, to before ``until``, at a steady ``rate``.
    """

    def __init__(self, plan: Plan, index: int = 0, count: int = 1, start: float = 0.0) -> None:
        self._profile = Profile(plan.stages, plan.writes + plan.reads)
        self._start = start
        self.workers = plan.workers
        self.total = round(self._profile.count)
        self.index = index
        self.count = count
        self.mine = len(range(index, plan.workers, count))
        self.share = plan.writes / (plan.writes + plan.reads)
        self.first = self.until = self.begin = 0.0
        self.rate = 1.0

    def due(self, number: int) -> float:
        """When the run's request of this number is due on the clock."""
        if (stage := self._profile.steady(number)) is not None:
            begin, self.first, self.until, self.rate = stage
            self.begin = self._start + begin
        return self._start + self._profile.due(number)

    def due_by(self, now: float) -> int:
        """How many of this generator's requests are due by then."""
        due = min(int(self._profile.due_by(now - self._start)) + 1, self.total)
        turns, rest = divmod(due, self.workers)
        return turns * self.mine + len(range(self.index, rest, self.count))


class Turns:
    """The requests of this generator's ``worker``, one after another: ``due`` is when the current one is.

    Whether the j-th request is a write follows from j alone: over any stretch the share of writes is exact to one
    request, and each worker starts at another place in the pattern, so that writes spread evenly over time.
    """

    __slots__ = ("_number", "_schedule", "due")

    def __init__(self, schedule: Schedule, worker: int) -> None:
        self.begin(schedule, worker)

    def begin(self, schedule: Schedule, worker: int) -> None:
        """Stand before the first request."""
        self._schedule = schedule
        self._number = worker * schedule.count + schedule.index
        self.due = 0.0

    def next_kind(self) -> int:
        """Go on to the next request: WRITE or READ."""
        schedule = self._schedule
        number = self._number
        self._number = number + schedule.workers
        if schedule.first <= number < schedule.until:
            self.due = schedule.begin + (number - schedule.first) / schedule.rate
        else:
            self.due = schedule.due(number)
        turn, worker = divmod(number, schedule.workers)
        phase = worker * _GOLDEN % 1
        return READ if int((turn + 1) * schedule.share + phase) == int(turn * schedule.share + phase) else WRITE
