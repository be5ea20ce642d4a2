"""Which span the work of a request belongs to, if there is a tracer.

A task begins with the span that is current where it is made. In a handler of FastAPI's that is
``fastapi.endpoint``, which ends with the handler: a child would go on in a span that has ended. So
children begin in the span of the request, unless the app has opened one of its own around them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, Never, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from quattro_core import SharedLimit
from quattro_web._request.tasks import CoroutineOrFunction, RequestGroup
from quattro_web._util import spans
from quattro_web._util.counts import ERROR, KIND, error_type
from quattro_web._util.task_stacks import name_of

T = TypeVar("T")

CANCELLED = "quattro.task.cancelled"


class TracedGroup(RequestGroup):
    """The task group of a request that is traced.

    Args:
        tracer: What makes a span for each child; None if they have none of their own.
        concurrency_limit: As with `TaskGroup`.
        shared_limit: As with `TaskGroup`.
    """

    is_traced = True

    def __init__(
        self,
        *,
        tracer: Tracer | None = None,
        concurrency_limit: int | None = None,
        shared_limit: SharedLimit | None = None,
    ) -> None:
        super().__init__(concurrency_limit=concurrency_limit, shared_limit=shared_limit)
        self._tracer = tracer

    def create_task(
        self,
        coro: CoroutineOrFunction[T],
        *args: Never,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        create = super().create_task
        options = {"name": name, "context": context, **kwargs}
        return self._create_traced(create, "foreground", coro, *args, **options)

    create_task.__doc__ = RequestGroup.create_task.__doc__

    def create_background_task(
        self,
        coro: CoroutineOrFunction[T],
        *args: Never,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        create = super().create_background_task
        options = {"name": name, "context": context, **kwargs}
        return self._create_traced(create, "background", coro, *args, **options)

    create_background_task.__doc__ = RequestGroup.create_background_task.__doc__

    def _create_traced(
        self,
        create: Callable[..., asyncio.Task[T]],
        kind: str,
        coro: CoroutineOrFunction[T],
        *args: Never,
        **options: Any,
    ) -> asyncio.Task[T]:
        if args:
            return create(coro, *args)  # which says what is wrong
        if options["context"] is None:
            options["context"] = self._context()
        if self._tracer is None:
            return create(coro, **options)
        return _make_in_span(self._tracer, create, kind, coro, options)

    def map(self, *args: Any, **options: Any) -> Any:
        # Its calls begin in the context in which it was called.
        context = self._context()
        call = super().map
        return call(*args, **options) if context is None else context.run(call, *args, **options)

    def _context(self) -> Context | None:
        """Return a context with the request's span, where an operation's of FastAPI's is current.

        None means that the current one is right.
        """
        of_the_request = getattr(self.scope.get("fastapi.telemetry"), "span", None)
        current = trace.get_current_span()
        if of_the_request is None or current is of_the_request or not _is_fastapis(current):
            return None
        return _with_span(of_the_request)


# What a user sees of it, as of the group that it is instead of.
TracedGroup.__name__ = TracedGroup.__qualname__ = RequestGroup.__name__


class TracerSpans(spans.Spans):
    """With a tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def without_span(self) -> Context:
        """Return a context for what belongs to no request."""
        return _with_span(INVALID_SPAN)

    def handed_over(self, name: str) -> AbstractContextManager[object]:
        """Return a span with a trace of its own, which is linked to that of the request."""
        return self._linked(name, trace.get_current_span())

    def carrier(self) -> dict[str, str]:
        """Return what tells another process of the current span."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier

    def job(
        self, name: str, carrier: object, *, is_handed_over: bool
    ) -> AbstractContextManager[object]:
        """Return a span below the one that another process has told of, if it has; or, of a job
        that was handed over, one with a trace of its own, which is linked to that one.
        """
        told = carrier if isinstance(carrier, dict) else {}
        caller = _PROPAGATOR.extract({str(key): str(value) for key, value in told.items()})
        if not is_handed_over:
            return _Span(self._tracer, name, "remote", parent=caller) if told else nullcontext()
        if trace.get_current_span().is_recording():  # docket's, where the provider is everybody's
            return nullcontext()
        return self._linked(name, trace.get_current_span(caller))

    def _linked(self, name: str, caller: Span) -> _Span:
        found = caller.get_span_context()
        links = [Link(found)] if found.is_valid else []
        parent = trace.set_span_in_context(INVALID_SPAN)
        return _Span(self._tracer, name, "handed_over", parent=parent, links=links)


_PROPAGATOR = TraceContextTextMapPropagator()


def _with_span(span: Span) -> Context:
    context = copy_context()
    context.run(otel_context.attach, context.run(trace.set_span_in_context, span))
    return context


def _is_fastapis(span: Span) -> bool:
    # The API has no name for it; what is no span of the SDK's says nothing.
    return getattr(getattr(span, "instrumentation_scope", None), "name", None) == "fastapi"


def _make_in_span(
    tracer: Tracer,
    create: Callable[..., asyncio.Task[T]],
    kind: str,
    coro: CoroutineOrFunction[T],
    options: dict[str, Any],
) -> asyncio.Task[T]:
    if not (asyncio.iscoroutine(coro) or callable(coro)):
        return create(coro, **options)
    name = name_of(coro) or "child"
    child: Any = _in_span(tracer, coro, options["name"] or name, kind)
    child.__qualname__ = name
    try:
        task = create(child, **options)
    except BaseException:
        child.close()
        _close(coro)
        raise
    task.add_done_callback(lambda _: _close(coro))  # which may never have begun
    return task


async def _in_span(tracer: Tracer, coro: CoroutineOrFunction[Any], name: str, kind: str) -> Any:
    with _Span(tracer, name, kind):
        awaitable: Any = coro if asyncio.iscoroutine(coro) else coro()  # type: ignore[operator]
        return await awaitable


class _Span:
    """A span around some work, which says how that has ended.

    OpenTelemetry's own context managers are generators, and so set the traceback of what is raised
    in them, which a frozen dataclass refuses.

    Args:
        tracer: Makes it.
        name: Its name.
        kind: What the work is.
        parent: The context with the span around it; None means the current one.
        links: Spans that have to do with it.
    """

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        kind: str,
        *,
        parent: otel_context.Context | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        self._parent = otel_context.get_current() if parent is None else parent
        self._begin = partial(
            tracer.start_span, name, self._parent, attributes={KIND: kind}, links=links
        )

    def __enter__(self) -> None:
        self._span = self._begin()
        self._token = otel_context.attach(trace.set_span_in_context(self._span, self._parent))

    def __exit__(
        self, et: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        if isinstance(exc, asyncio.CancelledError):
            self._span.set_attribute(CANCELLED, True)  # noqa: FBT003  # a value
        elif exc is not None:
            self._span.set_attribute(ERROR, error_type(exc))
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _close(coro: object) -> None:
    if isinstance(coro, Coroutine):
        coro.close()


def tracer_of(app: object) -> Tracer | None:
    """Return a tracer for an app, if there is one: FastAPI's may have its own."""
    own = getattr(app, "_telemetry", None)
    provider = own.get("tracer_provider") if isinstance(own, dict) else None
    found: TracerProvider = provider or trace.get_tracer_provider()
    is_none = isinstance(found, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    return None if is_none else found.get_tracer("quattro_web")
