"""Traces follow one message from its request to the store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from hubbub.loadtest.cluster import ClusterStack
from tests.conftest import Person, Service, eventually
from tests.servers import need_servers

_TRACE = "0af7651916cd43dd8448eb211c80319c"
_CALLER = f"00-{_TRACE}-b7ad6b7169203331-01"


class Collector:
    """A trace collector. Each of its ``spans`` has the name of the service that sent it."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    service = next(
                        each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
                    )
                    collector.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of_the_message(self) -> dict[str, tuple[str, Span]]:
        return {span.name: (service, span) for service, span in self.spans if span.trace_id.hex() == _TRACE}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with closing(Collector()) as collector:
        yield collector


def _post_traced(url: str) -> None:
    with closing(Person(url)) as ann:
        answer = ann.post(f"{ann.chat()}/messages", json={"body": "a secret text"}, headers={"traceparent": _CALLER})
        assert answer.status_code == 200


def _check(collector: Collector, services: tuple[str, str]) -> None:
    eventually(lambda: {"postMessage", "queue", "store"} <= set(collector.of_the_message()), 30)
    found = collector.of_the_message()
    request = found["postMessage"][1]
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert found["postMessage"][0] == services[0]
    for name in ("queue", "store"):
        service, span = found[name]
        assert service == services[1]
        assert span.parent_span_id == request.span_id
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert not any(b"secret text" in span.SerializeToString() for _, span in collector.spans)


def test_a_message_is_followed_in_one_process(tmp_path: Path, collector: Collector) -> None:
    service = Service(tmp_path / "data")
    service.start(HUBBUB_TRACE_URL=collector.url)
    _post_traced(service.url)
    assert service.stop() == 0
    _check(collector, ("hubbub serve", "hubbub serve"))
    assert {"register", "addApplication", "addChat"} <= {span.name for _, span in collector.spans}


def test_a_message_is_followed_through_the_broker(collector: Collector) -> None:
    need_servers()
    with ClusterStack(search=None, settings={"HUBBUB_TRACE_URL": collector.url}) as stack:
        _post_traced(stack.url)
        _check(collector, ("hubbub api", "hubbub writer"))
