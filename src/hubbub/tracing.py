"""Traces from the request through the queue to the store, sent by OpenTelemetry to a collector. Off by default: then
there is no Tracing, and nothing of OpenTelemetry is imported.

How much is sampled is OpenTelemetry's own setting (OTEL_TRACES_SAMPLER). A caller's ``traceparent`` (W3C Trace Context)
is taken over. No span has a token, an address or a text in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_HEADER = "traceparent"


class Tracing:
    """``begin`` and ``end`` are for the event loop, ``stored`` for any thread."""

    def __init__(self, url: str, part: str) -> None:
        """Send to an OTLP/HTTP collector at ``url``, as ``part`` (api, writer, serve)."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=Resource.create({"service.name": f"hubbub {part}"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("hubbub")
        self._context = TraceContextTextMapPropagator()
        self._server = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def begin(self, method: bytes, headers: Mapping[bytes, bytes]) -> Any:
        """A span for a request; who sent it may have begun the trace."""
        carrier = {_HEADER: headers.get(b"traceparent", b"").decode("latin-1")}
        parent = self._context.extract(carrier)
        attributes = {"http.request.method": method.decode("latin-1")}
        return self._tracer.start_span("request", parent, kind=self._server, attributes=attributes)

    def end(self, span: Any, route: str, status: int) -> None:
        span.update_name(route)
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(self._failed)
        span.end()

    def parent(self, span: Any) -> str:
        """What a command carries to the process that stores it."""
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._context.inject(carrier, set_span_in_context(span))
        return carrier.get(_HEADER, "")

    def stored(self, commands: Iterable[Any], began_ns: int, ended_ns: int) -> None:
        """Times are since 1970. Each traced command waited in the queue, and was then stored with the others."""
        for command in commands:
            trace = getattr(command, "trace", "")
            if trace:
                parent = self._context.extract({_HEADER: trace})
                queued = self._tracer.start_span("queue", parent, start_time=command.created_at * 1_000_000)
                queued.end(began_ns)
                self._tracer.start_span("store", parent, start_time=began_ns).end(ended_ns)

    def close(self) -> None:
        """Send what has gathered."""
        self._provider.shutdown()


def tracing_to(url: str, part: str) -> Tracing | None:
    """None where no collector is named."""
    return Tracing(url, part) if url else None
