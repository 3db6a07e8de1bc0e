"""The figures of ``/metrics`` match what happened."""

from __future__ import annotations

import json
import re
import resource
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Served, Service, eventually, new_metrics

DEPLOY = Path(__file__).parents[2] / "deploy"


def read(served: Served) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(new_metrics(served.url)):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_the_figures_that_an_operator_watches_are_there(service: Served) -> None:
    figures = read(service)
    assert figures["process_resident_memory_bytes"] > 1e7
    assert figures["process_cpu_seconds_total"] > 0
    assert figures["process_open_fds"] > 3
    assert figures["hubbub_queue_waiting_commands"] >= 0
    assert figures["hubbub_loop_lag_seconds_count"] > 0
    assert {"hubbub_cache_hits_total", "hubbub_cache_misses_total"} <= set(figures)
    if isinstance(service, ClusterStack):
        assert figures["hubbub_database_connections"] >= 0
        assert figures["hubbub_queue_depth_messages"] >= 0
    else:
        assert figures["hubbub_part_cpu_seconds_total"] > 0
        assert figures["hubbub_part_resident_memory_bytes"] > 1e7


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


def test_the_index_lag_returns_to_zero(service: Served) -> None:
    if isinstance(service, ClusterStack) and service.search is None:
        pytest.skip("not installed: opensearch. With Maven: scripts/install-search.sh")
    with closing(Person(service.url)) as ann:
        ann.post(f"{ann.chat()}/messages", json={"body": "behind"})
    eventually(lambda: read(service)["hubbub_index_lag_seconds"] == 0)


def names(text: str) -> set[str]:
    """Return the names that PromQL may query. A series with labels exists once something was counted."""
    found = {"up"}
    for family in text_string_to_metric_families(text):
        found |= {sample.name for sample in family.samples}
        if family.type == "histogram":
            found |= {family.name + ending for ending in ("_bucket", "_sum", "_count")}
    return found


def test_queries_of_the_dashboard_and_the_alerts_use_series_that_exist(
    cluster: ClusterStack, embedded: Service
) -> None:
    with closing(Person(cluster.url)) as ann:
        ann.post(f"{ann.chat()}/messages", json={"body": "x"})
    text = [httpx.get(cluster.url + "/metrics").text, *(httpx.get(url).text for url in cluster.writer_metrics)]
    assert all("hubbub_loop_lag_seconds_count" in names(each) for each in text)
    there = set.union(*map(names, text), names(new_metrics(embedded.url)))
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "hubbub.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    queries += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(queries) > 30
    for query in queries:
        asked = set(re.findall(r"\b(?:hubbub_|process_|up\b)\w*", query))
        assert asked, query
        assert asked <= there, query


def test_each_request_is_counted_once_by_route_and_status(own_service: Service) -> None:
    def counted(route: str, status: str) -> float:
        wanted = {"route": route, "status": status}
        families = text_string_to_metric_families(httpx.get(own_service.url + "/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(
            sample.value for sample in samples if sample.name.endswith("_seconds_count") and sample.labels == wanted
        )

    with closing(Person(own_service.url)) as ann:
        chat = ann.chat()
        for _ in range(3):
            ann.post(f"{chat}/messages", json={"body": "x"})
        ann.post(f"{chat}/messages", json={"body": ""})
        ann.get(f"{chat}/messages/99")
        ann.get("/no/such/path")
    assert counted("postMessage", "200") == 3
    assert counted("postMessage", "422") == 1
    assert counted("getMessage", "404") == 1
    assert counted("register", "201") == 1
    assert counted("other", "404") == 1
    figures = read(own_service)
    assert figures["hubbub_writes_accepted_total"] == figures["hubbub_writes_applied_total"] == 6
    assert figures["hubbub_writer_batch_commands_sum"] == 6


def test_metrics_need_no_spare_file_handle(own_service: Service) -> None:
    with httpx.Client(base_url=own_service.url) as client:
        before = client.get("/metrics").text
        pid = own_service.process.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 4096))
        try:
            eventually(lambda: client.get("/metrics").text != before)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (4096, 4096))
        text = client.get("/metrics").text
        assert "hubbub_connections 1" in text
        assert "hubbub_index_lag_seconds" in text
