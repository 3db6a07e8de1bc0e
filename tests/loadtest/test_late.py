"""Why requests are late, on a simulated clock, with a service of a known speed and a generator that may stall."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hubbub.loadtest import runner as runners
from hubbub.loadtest.mix import parse_size
from hubbub.loadtest.plan import Plan, Schedule
from hubbub.loadtest.profile import steady
from hubbub.loadtest.runner import Runner
from hubbub.loadtest.scenario import Scenario, Texts, VirtualUser, Workload
from hubbub.loadtest.summary import REASONS
from hubbub.loadtest.worker import Worker

SECONDS = 10
STEP_S = 0.001


class Simulated(Worker):
    """A worker whose requests are answered after ``takes_s(at)``, where ``at`` is when they are sent."""

    def __init__(self, runner: Runner, clock: Callable[[], float], takes_s: Callable[[float], float]) -> None:
        workload = Workload({"messages": 1}, parse_size("1"), 0.0, 1, "r", note=0)
        super().__init__(runner, 0, Scenario("http://x", VirtualUser("", "", (1,)), workload, Texts(workload), 0))
        self._clock = clock
        self._takes_s = takes_s
        self.socket = self  # type: ignore[assignment]
        self.answer_at = 0.0
        self.connected = True

    def send(self, request: bytes) -> int:
        self.answer_at = self._clock() + self._takes_s(self._clock())
        return len(request)


def simulated(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float], takes_s: Callable[[float], float], rate: int = 20
) -> tuple[Runner, Simulated]:
    monkeypatch.setattr(runners, "clock", clock)
    runner = Runner("http://x", lambda second: None)
    worker = Simulated(runner, clock, takes_s)
    runner.workers = [worker]
    runner._begin(Schedule(Plan(0, rate, 1, steady(SECONDS))))
    return runner, worker


def late(
    monkeypatch: pytest.MonkeyPatch,
    takes_s: Callable[[float], float],
    *,
    rate: int = 20,
    stall: tuple[float, float] = (0.0, 0.0),
) -> dict[str, int]:
    """Return the late requests of one worker by reason. The generator does not run during ``stall``."""
    now = [0.0]
    runner, worker = simulated(monkeypatch, lambda: now[0], takes_s, rate)
    while now[0] < SECONDS:
        if not stall[0] <= now[0] < stall[1]:
            if worker.busy and now[0] >= worker.answer_at:
                worker.busy = False
                if worker.behind:
                    runner._catch_up([worker])
            runner._pump(now[0])
        now[0] += STEP_S
    second = runner.summary.take(0, waiting=0, cpu_s=0, span_s=1)
    assert second.late[0] == (0, 0, 0)
    return dict(zip(REASONS, second.late[1], strict=True))


def test_nothing_is_late_if_all_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert late(monkeypatch, lambda at: 0.01) == {"connection": 0, "generator": 0, "server": 0}


def test_a_service_that_stalls_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = late(monkeypatch, lambda at: 1.0 if 2 <= at < 2.05 else 0.002)
    assert (
        found["server"] >= 15
    )  # 20 a second are due, and all but the last two more than 100 ms before it answers again
    assert (found["connection"], found["generator"]) == (0, 0)


def test_a_service_that_answers_soon_is_not_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = late(monkeypatch, lambda at: 0.09)  # this one connection can send 11 a second of the 20
    assert found["connection"] > 80
    assert (found["server"], found["generator"]) == (0, 0)


def test_a_generator_that_stalls_is_the_reason_also_for_requests_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found = late(monkeypatch, lambda at: 0.002, stall=(2.001, 3.0))  # a request is sent at 2.0
    assert found["generator"] >= 15
    assert found["server"] == 0


def test_a_lost_connection_is_blamed_on_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, worker = simulated(monkeypatch, lambda: 5.0, lambda at: 0.01)
    runner._last_tick = 5.0
    worker.behind = 1
    worker.sent_at = 4.99  # the last request was answered at once, and then the connection was lost
    runner.connected_again(worker)
    assert runner.summary.late[1] == [0, 0, 1]
