"""Where telemetry begins, if anything may want it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from quattro_web._request.tasks import RequestGroup
from quattro_web._util import spans


def offer_metrics() -> None:
    """Offer the metrics to OpenTelemetry, where its API is installed."""
    with suppress(ModuleNotFoundError):
        from quattro_web._telemetry.otel import register  # noqa: PLC0415  # it is optional

        register()


def traced_groups(
    app: object, *, child_spans: bool
) -> tuple[Callable[..., RequestGroup], spans.Spans]:
    """Return what makes the groups of requests, and spans: something else, if an app is traced."""
    with suppress(ModuleNotFoundError):
        from quattro_web._telemetry.spans import (  # noqa: PLC0415  # it is optional
            TracedGroup,
            TracerSpans,
            tracer_of,
        )

        tracer = tracer_of(app)
        if tracer is not None:
            group_class = partial(TracedGroup, tracer=tracer if child_spans else None)
            return group_class, TracerSpans(tracer)
    return RequestGroup, spans.Spans()
