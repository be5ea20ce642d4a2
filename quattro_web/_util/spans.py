"""A placeholder for spans: does nothing until `_telemetry/spans.py` replaces it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, ContextVar


class Spans:
    """Without a tracer."""

    def without_span(self) -> Context | None:
        """Return a context for what belongs to no request; None means a copy of the current one."""
        return None

    def handed_over(self, name: str) -> AbstractContextManager[object]:
        """Return what is around work that was handed over; *name* is that of its task."""
        del name
        return _NOTHING

    def carrier(self) -> dict[str, str]:
        """Return what tells another process of the current span."""
        return {}

    def job(
        self, name: str, carrier: object, *, is_handed_over: bool
    ) -> AbstractContextManager[object]:
        """Return what is around a job.

        Args:
            name: Its name.
            carrier: What the process that wants it has told of its span.
            is_handed_over: Whether nobody waits for it.
        """
        del name, carrier, is_handed_over
        return _NOTHING


_NOTHING = nullcontext()

# In the lifespan of an app, and in its pumps: those of that app. Two apps in one process may have
# tracers of their own.
CURRENT: ContextVar[Spans] = ContextVar("quattro_web.spans", default=Spans())  # noqa: B039  # it has no state
