"""Metrics in Prometheus' text format. They are read when asked for, except for the histograms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import psutil
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hubbub.http.stream_limiter import MAX_STREAMS
from hubbub.measures import Histogram, WriteMeasures


class Reading(NamedTuple):
    """The current value of one metric, in base units. A ``counter`` only rises while the process runs; ``_total`` is
    added to its name. Of several processes together it is the sum, or the ``largest``: of an age, and of what each
    process has read from the same place."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = {}
    counter: bool = False
    largest: bool = False


def writing(measures: WriteMeasures) -> list[Reading | Histogram]:
    """The metrics of a process that stores messages."""
    return [
        measures.batches,
        measures.commits,
        Reading("hubbub_writes_applied", "Commands stored.", measures.applied, counter=True),
        Reading("hubbub_writer_retries", "Batches that were retried.", measures.retries, counter=True, largest=True),
        Reading(
            "hubbub_writer_dead_letters",
            "Commands that could not be stored.",
            measures.dead,
            counter=True,
            largest=True,
        ),
        Reading(
            "hubbub_queue_age_seconds",
            "How long the oldest write of the latest batch had waited.",
            measures.age_s,
            largest=True,
        ),
    ]


def waiting(commands: int) -> Reading:
    return Reading("hubbub_queue_waiting_commands", "Writes accepted whose outcome is not known yet.", commands)


def accepted(commands: int) -> Reading:
    return Reading("hubbub_writes_accepted", "Commands taken into the queue.", commands, counter=True)


def serving(requests: Histogram, connections: int, streams: int) -> list[Reading | Histogram]:
    return [
        requests,
        Reading("hubbub_connections", "Connections of clients.", connections),
        Reading("hubbub_streams", "Open streams: clients that listen to a chat.", streams),
        Reading("hubbub_streams_limit", "Streams that may be open.", MAX_STREAMS),
    ]


def lag(seconds: float) -> Reading:
    return Reading("hubbub_index_lag_seconds", "For how long the oldest change has waited for the index.", seconds)


def cached(hits: int, misses: int) -> list[Reading]:
    what = "Lists of newest messages that the cache {}."
    return [
        Reading("hubbub_cache_hits", what.format("had"), hits, counter=True),
        Reading("hubbub_cache_misses", what.format("had not"), misses, counter=True),
    ]


def part(name: str, pid: int) -> list[Reading]:
    """The CPU and memory of another process of the service; nothing while they can't be read, as without a spare file
    handle."""
    try:
        process = psutil.Process(pid)
        times, memory = process.cpu_times(), process.memory_info()
    except (psutil.Error, OSError):
        return []
    labels = {"part": name}
    return [
        Reading("hubbub_part_cpu_seconds", "CPU time of a part.", times.user + times.system, labels, counter=True),
        Reading("hubbub_part_resident_memory_bytes", "Memory of a part.", memory.rss, labels),
    ]


def _family(histogram: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(histogram.name, histogram.help, labels=list(histogram.labels))
    for labels, counts in list(histogram.series.items()):
        total, buckets = 0.0, []
        for bound, count in zip((*map(str, histogram.bounds), "+Inf"), counts, strict=False):
            total += count
            buckets.append((bound, total))
        family.add_metric([str(label) for label in labels], buckets, counts[-1])
    return family


def merged(all_: Sequence[list[Reading | Histogram]]) -> list[Reading | Histogram]:
    """The figures of several processes as those of one service. Those that are in one alone stay as they are."""
    readings: dict[tuple[str, tuple[tuple[str, str], ...]], Reading] = {}
    histograms: dict[str, Histogram] = {}
    for each in itertools.chain.from_iterable(all_):
        if isinstance(each, Histogram):
            together = histograms.setdefault(each.name, Histogram(each.name, each.help, each.bounds, each.labels))
            for labels, counts in list(each.series.items()):
                sums = together.series.setdefault(labels, [0] * len(counts))
                together.series[labels] = [a + b for a, b in zip(sums, counts, strict=True)]
            continue
        key = each.name, tuple(sorted(each.labels.items()))
        before = readings.get(key)
        if before is None:
            readings[key] = each
        else:
            value = max(before.value, each.value) if each.largest else before.value + each.value
            readings[key] = before._replace(value=value)
    return [*histograms.values(), *readings.values()]


class _Readings(Collector):
    def __init__(self, readings: Iterable[Reading | Histogram]) -> None:
        self._histograms = [each for each in readings if isinstance(each, Histogram)]
        self._readings = [each for each in readings if isinstance(each, Reading)]

    def collect(self) -> Iterable[Metric]:
        yield from (_family(histogram) for histogram in self._histograms)
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for reading in self._readings:
            family = families.get(reading.name)
            if family is None:
                kind = CounterMetricFamily if reading.counter else GaugeMetricFamily
                family = families[reading.name] = kind(reading.name, reading.help, labels=list(reading.labels))
            family.add_metric(list(reading.labels.values()), reading.value)
        yield from families.values()


def exposition(readings: Iterable[Reading | Histogram]) -> bytes:
    """The readings, and the process's own CPU, memory and file handles."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Readings(list(readings)))
    return generate_latest(registry)


class Live(Collector):
    """Reads the metrics for each request to the server of Prometheus' library, in processes without the HTTP API."""

    def __init__(self, readings: Callable[[], list[Reading | Histogram]]) -> None:
        self._ask = readings

    def collect(self) -> Iterable[Metric]:
        return _Readings(self._ask()).collect()


def serve_metrics(host: str, port: int, readings: Callable[[], list[Reading | Histogram]]) -> Callable[[], None]:
    """Serve ``/metrics`` on a thread of its own. Returns a function that stops it. Raises OSError."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Live(readings))
    server, thread = start_http_server(port, host, registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
