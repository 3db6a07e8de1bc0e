"""A generator's summary of one second, which it sends to the coordinator."""

from __future__ import annotations

from array import array
from collections import Counter

import msgspec

from hubbub.loadtest.mix import ROUTES

# Why a request was sent over LATE_S after it was due, see Runner.
CONNECTION, GENERATOR, SERVER = range(3)
REASONS = ("connection", "generator", "server")

Late = tuple[int, int, int]  # by reason


class Answers(msgspec.Struct):
    """The answers of one route. ``latencies`` count from when a request was due, ``services`` from when it was sent:
    whole microseconds as unsigned 32-bit integers in the machine's byte order, one for each request that succeeded.
    """

    latencies: bytes
    services: bytes
    failures: dict[str, int]


class SecondSummary(msgspec.Struct, tag=True):
    """One second of a phase. ``index`` counts from 0; the last one also has the answers that came after the end."""

    index: int
    routes: dict[int, Answers]
    late: tuple[Late, Late]  # writes and reads sent over LATE_S after they were due
    waiting: int  # due and not sent at the end of this second
    lag_ms: float  # the longest that the generator itself came late
    cpu_s: float
    span_s: float  # how long this "second" was


class SummaryBuilder:
    """Counts requests and answers until ``take`` makes a summary of them and starts again from zero.

    ``latencies`` and ``services`` stay the same arrays, which workers append to.
    """

    def __init__(self) -> None:
        self.latencies = [array("I") for _ in ROUTES]
        self.services = [array("I") for _ in ROUTES]
        self.clear()

    def clear(self) -> None:
        self.late = ([0, 0, 0], [0, 0, 0])
        self.lag_s = 0.0
        for gathered in (*self.latencies, *self.services):
            del gathered[:]
        self.failures: Counter[tuple[int, str]] = Counter()

    def fail(self, route: int, why: str) -> None:
        self.failures[route, why] += 1

    def take(self, index: int, *, waiting: int, cpu_s: float, span_s: float) -> SecondSummary:
        routes = {
            route: Answers(latencies.tobytes(), services.tobytes(), {})
            for route, (latencies, services) in enumerate(zip(self.latencies, self.services, strict=True))
            if latencies
        }
        for (route, why), count in self.failures.items():
            routes.setdefault(route, Answers(b"", b"", {})).failures[why] = count
        writes, reads = self.late
        late = ((writes[0], writes[1], writes[2]), (reads[0], reads[1], reads[2]))
        second = SecondSummary(index, routes, late, waiting, self.lag_s * 1000, cpu_s, span_s)
        self.clear()
        return second
