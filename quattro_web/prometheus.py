"""The metrics for Prometheus, without OpenTelemetry."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from quattro_web._telemetry import readings
from quattro_web._util import counts

try:
    from prometheus_client import Metric
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry
except ModuleNotFoundError as _exc:
    msg = "quattro_web.prometheus needs prometheus_client: pip install 'quattro-web[prometheus]'"
    raise ModuleNotFoundError(msg, name=_exc.name) from _exc

__all__ = ["TaskCollector"]

_GAUGES: dict[str, tuple[str, Callable[[], list[readings.Reading]]]] = {
    "quattro_task_active": ("Tasks that have not ended.", readings.active_tasks),
    "quattro_pump_up": ("Whether a pump is up.", readings.pumps_up),
    "quattro_lock_held": ("Whether this process holds the lock of a pump.", readings.locks_held),
}
_COUNTERS: dict[str, tuple[str, Callable[[], list[readings.Reading]]]] = {
    "quattro_task_failures": ("Tasks that have failed.", counts.TASK_FAILURES.counted),
    "quattro_request_cancellations": (
        "Requests that were cancelled.",
        counts.CANCELLATIONS.counted,
    ),
    "quattro_task_rejections": (
        "Tasks that were rejected because too many were waiting for a limit.",
        counts.REJECTIONS.counted,
    ),
    "quattro_pump_restarts": ("How often a pump was restarted.", readings.pump_restarts),
}
_LABELS = {
    "quattro_task_active": (counts.KIND, readings.STATE),
    "quattro_task_failures": counts.TASK_FAILURES.names,
    "quattro_request_cancellations": counts.CANCELLATIONS.names,
    "quattro_task_rejections": counts.REJECTIONS.names,
}


class TaskCollector(Collector):
    """A collector for prometheus_client: the metrics of all apps in this process.

    ::

        TaskCollector().register()

    The names are those of the OpenTelemetry metrics, with underscores. In prometheus_client's
    multiprocess mode, each worker reports only its own metrics, with its process id as the label
    ``pid``; register the collector with the registry that you create for each scrape, beside a
    ``MultiProcessCollector``.

    .. versionadded:: 0.1
    """

    def register(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register it.

        Args:
            registry: The registry; by default prometheus_client's global one.

        .. versionadded:: 0.1
        """
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the current metrics; any thread may call this.

        .. versionadded:: 0.1
        """
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=self._labels(name))
            for labels, count in read():
                gauge.add_metric(self._values(name, labels), count)
            yield gauge
        for name, (text, read) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=self._labels(name))
            for labels, count in read():
                counter.add_metric(self._values(name, labels), count)
            yield counter
        yield from (histogram.family(self._pid) for histogram in _HISTOGRAMS)

    @property
    def _pid(self) -> dict[str, str]:
        is_one_of_many = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
        return {"pid": str(os.getpid())} if is_one_of_many else {}

    def _labels(self, name: str) -> list[str]:
        names = _LABELS.get(name, (readings.PUMP,))
        return [label.replace(".", "_") for label in names] + list(self._pid)

    def _values(self, name: str, labels: dict[str, str]) -> list[str]:
        names = _LABELS.get(name, (readings.PUMP,))
        return [labels.get(label, "") for label in names] + list(self._pid.values())


class _Histogram:
    def __init__(self, name: str, text: str, labels: Iterable[str]) -> None:
        self._name, self._text, self._labels = name, text, list(labels)
        self._seen: dict[tuple[str, ...], list[float]] = {}  # the sum, and a count for each bucket

    def observe(self, seconds: float, attributes: dict[str, str]) -> None:
        key = tuple(attributes.get(label, "") for label in self._labels)
        seen = self._seen.setdefault(key, [0.0] * (len(counts.BUCKETS) + 2))
        seen[0] += seconds
        seen[1 + bisect_left(counts.BUCKETS, seconds)] += 1

    def family(self, pid: dict[str, str]) -> HistogramMetricFamily:
        labels = [label.replace(".", "_") for label in self._labels]
        family = HistogramMetricFamily(self._name, self._text, labels=[*labels, *pid])
        for key, (total, *numbers) in list(self._seen.items()):
            family.add_metric([*key, *pid.values()], list(_cumulated(numbers)), total)
        return family


def _cumulated(numbers: Iterable[float]) -> Iterator[tuple[str, float]]:
    below = 0.0
    for bound, number in zip([*map(str, counts.BUCKETS), "+Inf"], numbers, strict=True):
        below += number
        yield bound, below


_HISTOGRAMS = (
    _Histogram(
        "quattro_task_duration_seconds", "How long handed-over work and jobs take.", [counts.KIND]
    ),
    _Histogram("quattro_shutdown_duration_seconds", "How long shutdowns take.", []),
)
counts.TASK_DURATIONS.observers.append(_HISTOGRAMS[0].observe)
counts.SHUTDOWN_DURATIONS.observers.append(_HISTOGRAMS[1].observe)
