"""``/metrics``: what Prometheus reads, true to what happened."""

from __future__ import annotations

from contextlib import closing

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Served, eventually


def read(served: Served) -> dict[str, float]:
    answer = httpx.get(served.url + "/metrics", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_what_an_operator_watches_is_there(service: Served) -> None:
    figures = read(service)
    assert figures["process_resident_memory_bytes"] > 1e7
    assert figures["process_cpu_seconds_total"] > 0
    assert figures["process_open_fds"] > 3
    assert figures["hubbub_queue_waiting_commands"] >= 0
    assert {"hubbub_cache_hits_total", "hubbub_cache_misses_total"} <= set(figures)
    if isinstance(service, ClusterStack):
        assert figures["hubbub_database_connections"] >= 0
        assert figures["hubbub_queue_depth_messages"] >= 0


def test_lists_are_counted_as_hits(service: Served) -> None:
    with closing(Person(service.url)) as ann:
        chat = ann.chat()
        ann.post(f"{chat}/messages", json={"body": "x"})
        before = read(service)
        for _ in range(20):
            ann.get(f"{chat}/messages")
        after = read(service)
    assert after["hubbub_cache_hits_total"] - before["hubbub_cache_hits_total"] >= 18
    assert after["hubbub_cache_misses_total"] - before["hubbub_cache_misses_total"] <= 2


def test_the_index_lag_goes_back_to_nothing(service: Served) -> None:
    if isinstance(service, ClusterStack) and service.opensearch is None:
        pytest.skip("not installed: opensearch. With Maven: scripts/install-search.sh")
    with closing(Person(service.url)) as ann:
        ann.post(f"{ann.chat()}/messages", json={"body": "behind"})
    eventually(lambda: read(service)["hubbub_index_lag_seconds"] == 0)
