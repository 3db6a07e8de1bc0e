"""/metrics and the operator page, where several processes serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hubbub.chat.errors import Unavailable
from hubbub.embedded import figures
from hubbub.embedded.figures import FirstsOverview, of_all, showing
from hubbub.http import overview
from hubbub.http.anonymous import AnonymousRate
from hubbub.http.metrics import Reading, accepted, merged, waiting, writing
from hubbub.http.operator import RecentErrors
from hubbub.http.overview import Gathered, Overview, nobody
from hubbub.http.routes.service import ServiceRoutes
from hubbub.http.routing import application, routes_of
from hubbub.measures import SECONDS, Histogram, WriteMeasures
from tests.peers import two_peers


def requests() -> Histogram:
    return Histogram("hubbub_http_request_duration_seconds", "Requests.", SECONDS, ("route", "status"))


class Process:
    """What a process that serves has counted."""

    def __init__(self) -> None:
        self.requests = requests()
        self.accepted = 0
        self.errors = RecentErrors()
        self.silent = False

    async def readings(self) -> list[Reading | Histogram]:
        if self.silent:
            await asyncio.Event().wait()
        return [self.requests, accepted(self.accepted)]

    def serve(self) -> None:
        self.requests.observe(0.003, ("postMessage", 200))
        self.accepted += 1

    def warn(self, second: int, text: str) -> None:
        record = logging.LogRecord("hubbub", logging.WARNING, "", 0, text, None, None)
        record.created, record.msecs = second, 0
        self.errors.emit(record)


class Service(NamedTuple):
    """Two processes that serve, and what each shows; the other one is asked by the first."""

    first: Process
    other: Process
    shown: tuple[Overview, Overview]


@asynccontextmanager
async def served() -> AsyncIterator[Service]:
    one, two = Process(), Process()
    other = Gathered(two.readings, two.errors, nobody)
    answered: dict[str, Any] = {}
    async with two_peers(answered, showing(other)) as peers:
        first = Gathered(one.readings, one.errors, lambda: of_all([peers.other]))
        answered.update(showing(first))
        yield Service(one, two, (first, FirstsOverview(peers.first)))


def samples(metrics: bytes) -> dict[str, float]:
    """The figures that only rise."""
    families = text_string_to_metric_families(metrics.decode())
    return {
        str((sample.name, sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if family.type in ("counter", "histogram")
    }


def test_figures_of_the_same_name_and_labels_are_added() -> None:
    one, two = requests(), requests()
    one.observe(0.002, ("postMessage", 200))
    two.observe(0.002, ("postMessage", 200))
    two.observe(30, ("postMessage", 200))
    two.observe(1, ("getMessage", 404))
    lag = Histogram("hubbub_loop_lag_seconds", "Lag.", SECONDS)
    parts = [Reading("part", "A part.", 7, {"part": name}) for name in ("commit", "serve")]
    together = merged([[one, accepted(3), parts[0]], [lag, two, accepted(4), waiting(1), parts[1]]])
    histograms = {each.name: each for each in together if isinstance(each, Histogram)}
    assert set(histograms) == {one.name, lag.name}
    counted = histograms[one.name].series
    assert sum(counted["postMessage", 200][:-1]) == 3
    assert counted["postMessage", 200][2] == 2
    assert counted["postMessage", 200][-1] == pytest.approx(30.004)
    assert counted["getMessage", 404] == two.series["getMessage", 404]
    assert sum(one.series["postMessage", 200][:-1]) == 1, "a process's own figures are not changed"
    readings = [each for each in together if isinstance(each, Reading)]
    assert readings == [accepted(7), parts[0], waiting(1), parts[1]]


def test_ages_and_what_all_read_from_one_place_are_not_added() -> None:
    """The process that commits tells each of the others how often it has retried."""
    one, two = WriteMeasures(), WriteMeasures()
    one.retries, two.retries, one.dead, two.dead = 3, 2, 1, 1
    one.stored(4, 0.01, 0.5)
    two.stored(6, 0.01, 0.25)
    together = {each.name: each for each in merged([writing(one), writing(two)])}
    value = {name: each.value for name, each in together.items() if isinstance(each, Reading)}
    assert value["hubbub_queue_age_seconds"] == 0.5
    assert value["hubbub_writer_retries"] == 3
    assert value["hubbub_writer_dead_letters"] == 1
    assert value["hubbub_writes_applied"] == 10


@pytest.mark.parametrize("part_of_the_time", [0.1, 1e9], ids=["as usual", "each answer is made anew"])
async def test_no_counter_goes_back_whichever_process_is_asked(
    monkeypatch: pytest.MonkeyPatch, part_of_the_time: float
) -> None:
    monkeypatch.setattr(overview, "_FIGURES_PART", part_of_the_time)
    async with served() as service:
        before: dict[str, float] = {}
        for turn in range(200):
            for process in (service.first, service.other)[: 1 + turn % 2]:
                process.serve()
            now = samples(await service.shown[turn % 3 % 2].metrics())
            assert now.keys() >= before.keys()
            assert {name for name, value in before.items() if now[name] < value} == set()
            before = now
        for shown in reversed(service.shown):
            state = await shown.state()
            assert state.figures["hubbub_writes_accepted_total"] == 300
            assert [(each.route, each.status, sum(each.counts)) for each in state.requests] == [
                ("postMessage", "200", 300)
            ]
            assert state.figures["process_cpu_seconds_total"] > 0


async def test_the_latest_warnings_of_all_processes_are_shown_newest_first() -> None:
    async with served() as service:
        for second in range(40):
            service.first.warn(2 * second, f"first {second}")
            service.other.warn(2 * second + 1, f"other {second}")
        for shown in service.shown:
            errors = (await shown.state()).errors
            assert len(errors) == 50
            assert [line.rpartition(": ")[2] for line in errors[:3]] == ["other 39", "first 39", "other 38"]


async def test_figures_are_not_shown_without_those_of_a_silent_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them, all counters would seem to have begun again."""
    monkeypatch.setattr(figures, "_LIMIT_S", 0.05)
    async with served() as service:
        service.other.silent = True
        for shown in service.shown:
            with pytest.raises(Unavailable, match="does not answer"):
                await shown.state()
            routes = routes_of(ServiceRoutes(cast(Any, None), shown, []), base="")
            transport = httpx.ASGITransport(application(routes, AnonymousRate()))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                answer = await client.get("/metrics")
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) >= 1
        service.other.silent = False
        for shown in service.shown:
            assert b"hubbub_writes_accepted_total 0.0" in await shown.metrics()
