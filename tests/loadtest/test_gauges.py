"""The load test reads a service's /metrics, whatever they contain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.loadtest import gauges
from hubbub.loadtest.accounts import Accounts
from hubbub.loadtest.client import Client
from hubbub.loadtest.gauges import SERVICE_ROUTES, Gauges
from hubbub.loadtest.setup import prepare
from tests.conftest import Service
from tests.loadtest.small_service import SmallService, small_service


@pytest.fixture(scope="module")
def served() -> Iterator[SmallService]:
    with small_service() as service:
        yield service


@pytest.fixture
def small(served: SmallService) -> SmallService:
    served.metrics_wait_s = 0.0
    return served


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (404, b"", "it answers 404"),
        (401, b"{}", "it answers 401"),
        (200, b"<!doctype html><title>Metrics</title>", "it is not Prometheus' text"),
        (200, b'{"metrics": []}', "it is not Prometheus' text"),
        (200, b"", "it is not Prometheus' text"),
        (200, b"\xff\xfe\x00", "it is not Prometheus' text"),
        (200, b"hubbub_queue_waiting_commands many\n", "it is not Prometheus' text"),
        (
            200,
            b'hubbub_http_request_duration_seconds_bucket{le="x",route="listChats"} 1\n',
            "it is not Prometheus' text",
        ),
        (200, b"a 1\n" * (gauges._LONGEST // 4 + 1), "it is over 4 MiB"),
    ],
)
async def test_unusable_metrics_are_reported_and_not_read_again(
    small: SmallService, status: int, body: bytes, why: str
) -> None:
    small.metrics = status, body
    reader = Gauges(small.url)
    assert await reader.read() == {}
    assert reader.unusable == why
    small.metrics = 200, b"hubbub_queue_waiting_commands 1\n"
    assert await reader.read() == {}
    assert reader.served() == (None, None)
    reader.close()


async def test_slow_metrics_are_given_up_only_after_several_tries(
    small: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "_PATIENCE_S", 10.0)
    small.metrics = 200, b"hubbub_queue_waiting_commands 7\n"
    reader = Gauges(small.url)
    assert await reader.read() == {"writes waiting": 7}
    small.metrics_wait_s = 5.0
    monkeypatch.setattr(gauges, "_PATIENCE_S", 0.2)
    assert await reader.read() == await reader.read() == {}
    small.metrics_wait_s = 0.0
    monkeypatch.setattr(gauges, "_PATIENCE_S", 10.0)
    assert await reader.read() == {"writes waiting": 7}
    assert reader.unusable is None
    small.metrics_wait_s = 5.0
    monkeypatch.setattr(gauges, "_PATIENCE_S", 0.1)
    for _ in range(3):
        assert await reader.read() == {}
    assert reader.unusable == "it took over 0.1 s, 3 times in a row"
    reader.close()


async def test_a_reading_that_is_cut_off_does_not_answer_the_next(small: SmallService) -> None:
    small.metrics = 200, b"hubbub_queue_waiting_commands 1\n"
    small.metrics_wait_s = 0.3
    reader = Gauges(small.url)
    cut = asyncio.ensure_future(reader.read())
    await asyncio.sleep(0.1)
    cut.cancel()
    await asyncio.wait([cut])
    small.metrics = 200, b"hubbub_queue_waiting_commands 2\n"
    assert await reader.read() == {"writes waiting": 2}
    reader.close()


async def test_figures_that_are_not_numbers_are_left_out(small: SmallService) -> None:
    small.metrics = 200, b"hubbub_queue_waiting_commands NaN\nhubbub_index_lag_seconds +Inf\nup 1\n"
    reader = Gauges(small.url)
    assert await reader.read() == {}
    assert reader.unusable is None
    reader.close()


def histogram(within: dict[str, int], sum_s: float, started: float = 1.0) -> bytes:
    name = "hubbub_http_request_duration_seconds"
    labels = 'route="listChats",status="200"'
    lines = [f'{name}_bucket{{le="{bound}",{labels}}} {count}' for bound, count in within.items()]
    lines += [f"{name}_sum{{{labels}}} {sum_s}", f"process_start_time_seconds {started}"]
    return "\n".join([*lines, ""]).encode()


async def test_the_services_own_latency_is_from_between_two_readings(small: SmallService) -> None:
    reader = Gauges(small.url)
    small.metrics = 200, histogram({"0.001": 100, "0.01": 100, "+Inf": 100}, 5.0)
    await reader.read()
    small.metrics = 200, histogram({"0.001": 150, "0.01": 198, "+Inf": 200}, 5.4)
    await reader.read()
    writes, reads = reader.served()
    assert writes is None
    assert reads is not None
    assert reads.count == 100
    assert reads.avg == pytest.approx(4.0)
    assert reads.p50 == pytest.approx(1.0)
    assert 1 < reads.p95 < 10
    assert reads.p99 == 10  # it is above the last finite bound
    assert [ms for _, ms in reads.spectrum] == sorted(ms for _, ms in reads.spectrum)
    small.metrics = 200, histogram({"0.001": 500, "0.01": 500, "+Inf": 500}, 6.0, started=2.0)
    await reader.read()
    assert reader.served() == (None, None)  # another process has started since
    reader.close()


async def test_a_histogram_that_breaks_later_is_reported(small: SmallService) -> None:
    reader = Gauges(small.url)
    small.metrics = 200, histogram({"0.001": 1, "+Inf": 1}, 5.0)
    await reader.read()
    small.metrics = 200, histogram({"0.001": 1, "x": 1}, 5.0)
    await reader.read()
    assert reader.served() == (None, None)
    assert reader.unusable == "it is not Prometheus' text"
    reader.close()


@given(st.text(max_size=200) | st.text(alphabet='hub_{}="\\\n 1le,.', max_size=80).map(lambda text: f"hubbub_{text}"))
def test_no_text_breaks_the_reader(text: str) -> None:
    reader = Gauges("http://127.0.0.1:1")
    for _ in range(2):
        json.dumps(reader._shown(text), allow_nan=False)
    reader.served()


async def test_hubbubs_own_histogram_has_the_routes_that_are_asked(embedded: Service) -> None:
    async with httpx.AsyncClient(base_url=embedded.url) as outsider:
        document = (await outsider.get("/openapi.json")).json()
    names = {each["operationId"] for path in document["paths"].values() for each in path.values()}
    assert {name for route in SERVICE_ROUTES.values() for name in route} <= names
    accounts = Accounts(embedded.url)
    (user,) = await prepare(accounts, 1)
    reader, client = Gauges(embedded.url), Client(embedded.url, user.cookie)
    await reader.read()
    path = f"/applications/{user.token}/chats"
    for _ in range(3):
        await client.call("POST", f"{path}/1/messages", {"body": "Hello"})
        await client.call("GET", f"{path}/1/messages?before=2")
        await client.call("GET", path)
    async with asyncio.timeout(10):
        while True:  # the figures may be some milliseconds old
            await reader.read()
            writes, reads = reader.served()
            if writes is not None and reads is not None and writes.count >= 3 and reads.count >= 6:
                break
    client.close()
    reader.close()
