"""The metrics for OpenTelemetry: only its API, which does nothing until a provider is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from quattro_web._telemetry.readings import (
    Reading,
    active_tasks,
    locks_held,
    pump_restarts,
    pumps_up,
)
from quattro_web._util.counts import (
    BUCKETS,
    CANCELLATIONS,
    REJECTIONS,
    SHUTDOWN_DURATIONS,
    TASK_DURATIONS,
    TASK_FAILURES,
)

_Callback = Callable[[CallbackOptions], Iterable[Observation]]


def register() -> None:
    """Register the instruments at the global meter provider, also one that is set later.

    An instrument of a meter that has one of its name already is the same; its callback is not.
    """
    if _REGISTERED:
        return
    _REGISTERED.append(True)
    meter = metrics.get_meter("quattro_web")
    meter.create_observable_up_down_counter(
        "quattro.task.active", [_observing(active_tasks)], "{task}", "Tasks that have not ended."
    )
    meter.create_observable_counter(
        "quattro.task.failures",
        [_observing(TASK_FAILURES.counted)],
        "{failure}",
        "Tasks that have failed.",
    )
    meter.create_observable_counter(
        "quattro.request.cancellations",
        [_observing(CANCELLATIONS.counted)],
        "{request}",
        "Requests that were cancelled.",
    )
    meter.create_observable_counter(
        "quattro.task.rejections",
        [_observing(REJECTIONS.counted)],
        "{rejection}",
        "Tasks that were rejected because too many were waiting for a limit.",
    )
    meter.create_observable_up_down_counter(
        "quattro.pump.up", [_observing(pumps_up)], "{pump}", "Pumps that are up."
    )
    meter.create_observable_counter(
        "quattro.pump.restarts",
        [_observing(pump_restarts)],
        "{restart}",
        "How often pumps were restarted.",
    )
    meter.create_observable_up_down_counter(
        "quattro.lock.held",
        [_observing(locks_held)],
        "{lock}",
        "Locks of pumps that this process holds.",
    )
    for name, description, durations in (
        ("quattro.task.duration", "How long handed-over work and jobs take.", TASK_DURATIONS),
        ("quattro.shutdown.duration", "How long shutdowns take.", SHUTDOWN_DURATIONS),
    ):
        histogram = meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=BUCKETS
        )
        durations.observers.append(histogram.record)


_REGISTERED: list[bool] = []


def _observing(read: Callable[[], list[Reading]]) -> _Callback:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, attributes) for attributes, count in read()]

    return observe
