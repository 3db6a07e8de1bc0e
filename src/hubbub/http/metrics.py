"""What an operator watches, in Prometheus' text format. All is read when it is asked for; requests pay nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Reading(NamedTuple):
    """One figure of now, in base units. A ``counter`` only rises while the process lives; ``_total`` is added to it."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = {}
    counter: bool = False


class _Readings(Collector):
    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = list(readings)

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for reading in self._readings:
            family = families.get(reading.name)
            if family is None:
                kind = CounterMetricFamily if reading.counter else GaugeMetricFamily
                family = families[reading.name] = kind(reading.name, reading.help, labels=list(reading.labels))
            family.add_metric(list(reading.labels.values()), reading.value)
        return families.values()


def exposition(readings: Iterable[Reading]) -> bytes:
    """The readings, and the process's own CPU, memory and file handles."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Readings(readings))
    return generate_latest(registry)
