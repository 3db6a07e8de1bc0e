"""The load test's memory does not grow with the length of a run. Hours are simulated, and all objects measured."""

from __future__ import annotations

import gc
import random
import sys
from types import FunctionType, ModuleType
from typing import Any

import pytest

from hubbub.loadtest import plan
from hubbub.loadtest.mix import MATTERMOST, SEND, parse_size
from hubbub.loadtest.plan import Plan
from hubbub.loadtest.profile import steady
from hubbub.loadtest.run import Run
from hubbub.loadtest.scenario import Scenario, Texts, VirtualUser, Workload
from hubbub.loadtest.summary import SummaryBuilder
from hubbub.loadtest.usage import Watch
from tests.loadtest.test_figures import answers, second


def weight(thing: object) -> int:
    """Return the bytes of an object and of all that it refers to, except code."""
    seen: set[int] = set()
    ahead: list[Any] = [thing]
    size = 0
    while ahead:
        each = ahead.pop()
        if id(each) in seen or isinstance(each, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(each))
        size += sys.getsizeof(each)
        ahead += gc.get_referents(each)
    return size


def test_the_figures_of_a_run_do_not_grow_with_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Plan(1, 1, 1, steady(3600)).interval == 1
    assert Plan(1, 1, 1, steady(10 * 3600)).interval == 10
    monkeypatch.setattr(plan, "_POINTS", 100)  # instead of 3,600, so that a run of 200 s is a long one

    def grown(seconds: int) -> Run:
        run = Run(Plan(5000, 10000, 100, steady(seconds)), 0.0)
        routes = {SEND: answers([1000, 2000, 5000], {"status 503": 1})}
        for index in range(seconds):
            run.add([second(index, routes), second(index, routes)])
        return run

    short, long = grown(200), grown(2000)
    assert len(short.moments) == len(long.moments) == 100
    assert sum(moment.writes.total for moment in long.moments) == 2000 * 8
    assert long.moments[-1].second == 2000
    assert weight(long) < 1.05 * weight(short)


def test_a_point_of_a_long_run_has_the_figures_of_all_its_seconds() -> None:
    run = Run(Plan(10, 0, 4, steady(7201)), 0.0)
    assert run.plan.interval == 3
    for index in range(4):
        run.add([second(index, {SEND: answers([(index + 1) * 1000] * 10)}, waiting=index, late=((1, 0, 0), (0, 0, 0)))])
    (moment,) = run.moments
    assert (moment.second, moment.waiting) == (3, 2)
    assert (moment.writes.total, moment.writes.rate, moment.writes.late) == (30, 10, 3)
    assert (moment.writes.p50, moment.writes.max) == (2, 3)
    assert len(run.recent) == 4


def test_a_worker_holds_no_more_after_many_requests() -> None:
    workload = Workload(MATTERMOST, parse_size("20-60"), 1.0, 1, "r", note=0)
    scenario = Scenario("http://h:1", VirtualUser("auth_token=t", "T", (1, 2, 3)), workload, Texts(workload), 0)

    def work(times: int) -> int:
        for _ in range(times):
            scenario.write()
            number = scenario._chat.newest + 1 if scenario.route == SEND else 0
            scenario.wrong(204 if not number else 200, b'{"messageNumber":%d}' % number)
            scenario.read()
            scenario.wrong(200, b"[]")
        return weight(scenario)

    assert work(20_000) < 1.01 * work(2_000) + 4096


def test_a_generator_forgets_what_it_has_reported() -> None:
    summary = SummaryBuilder()
    before = weight(summary)
    rng = random.Random(1)
    for index in range(50):
        for _ in range(200):
            summary.latencies[SEND].append(rng.randrange(1000))
            summary.fail(SEND, "status 503")
        assert sum(summary.take(index, waiting=0, cpu_s=0, span_s=1).routes[SEND].failures.values()) == 200
    assert weight(summary) == before


async def test_the_service_is_sampled_only_once_for_each_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run takes a day, in which each sleep of the watch moves the clock."""
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 86_400:
            raise EOFError

    monkeypatch.setattr("hubbub.loadtest.usage.asyncio.sleep", sleep)
    monkeypatch.setattr("hubbub.loadtest.usage.time.monotonic", lambda: now[0])
    watch = Watch("http://127.0.0.1:1", {}, Plan(1, 1, 1, steady(86_400)).interval)
    watch._gauges.unusable = "not looked at"
    with pytest.raises(EOFError):
        await watch.follow(0.0)
    assert len(watch.samples) <= 3600
    assert watch.samples[-1]["second"] == 86_400 - 24
