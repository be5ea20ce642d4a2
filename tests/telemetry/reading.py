"""The metrics, as an exporter gets them: of OpenTelemetry's SDK, and of prometheus_client."""

from __future__ import annotations

from typing import Any

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from quattro_web._telemetry.offer import offer_metrics
from quattro_web.prometheus import TaskCollector

Key = tuple[tuple[str, str], ...]

READER = InMemoryMetricReader()
# The global provider can be set once in a process, and another test may have done so.
if isinstance(_provider := metrics.get_meter_provider(), MeterProvider):
    _provider.add_metric_reader(READER)
else:
    metrics.set_meter_provider(MeterProvider([READER]))
offer_metrics()  # as the first app that runs does


def opentelemetry(name: str) -> dict[Key, Any]:
    """Return the data points of a metric, by their attributes."""
    data = READER.get_metrics_data()
    found: dict[Key, Any] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            if scope.scope.name == "quattro_web":
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            attributes = {
                                str(k): str(v) for k, v in (point.attributes or {}).items()
                            }
                            found[tuple(sorted(attributes.items()))] = point
    return found


def prometheus(name: str) -> dict[Key, float]:
    """Return the samples of a name, by their labels."""
    registry = CollectorRegistry()
    TaskCollector().register(registry)
    return {
        tuple(sorted((key, value) for key, value in sample.labels.items() if value)): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == name
    }


class Counted:
    """How much a counter has grown since this was made, told by both."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._of_prometheus = name.replace(".", "_") + "_total"
        self._before = self._read()

    def _read(self) -> dict[Key, int]:
        read = {key: int(point.value) for key, point in opentelemetry(self._name).items()}
        underscored = {
            tuple(sorted((key.replace(".", "_"), value) for key, value in labels)): count
            for labels, count in read.items()
        }
        assert underscored == prometheus(self._of_prometheus)
        return read

    def grown(self) -> dict[Key, int]:
        """Return by how much, where it is not by 0."""
        now = self._read()
        grown = {key: count - self._before.get(key, 0) for key, count in now.items()}
        return {key: count for key, count in grown.items() if count}


def key(**labels: str) -> Key:
    """Return the key of some attributes; double underscores stand for dots."""
    return tuple(sorted((name.replace("__", "."), value) for name, value in labels.items()))
