"""One call that sets up an app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware

from quattro_web._middleware import TaskGroupMiddleware, same_around
from quattro_web._pumps.pump import Pump, PumpFunction
from quattro_web._pumps.pumps import Pumps
from quattro_web._shutdown.state import ShutdownGrace


class AppPart(Protocol):
    """What an app is installed with, and has pumps, such as `quattro_web.jobs.Jobs`."""

    def pumps_for(self, app: Starlette) -> Iterable[Pump]:
        """Return its pumps for *app*."""
        ...


def install(
    app: Starlette,
    *,
    pumps: Iterable[Pump | PumpFunction] = (),
    jobs: AppPart | None = None,
    concurrency_limit: int | None = None,
    total_limit: int | None = None,
    max_waiting: int | None = None,
    cancel_on_disconnect: bool = False,
    deadline: float | Mapping[str, float | None] | None = None,
    stream_deadline: float | Mapping[str, float | None] | None = None,
    deadline_header: str | None = None,
    app_concurrency_limit: int | None = None,
    app_max_waiting: int | None = None,
    shutdown_grace: ShutdownGrace | None = None,
    dump_signal: int | None = None,
    child_spans: bool = False,
) -> None:
    """Give a Starlette or FastAPI app its task groups: one for each request, one for the app.

    Call it once, before the app serves its first request. Middlewares and routers may be added
    before or after; all other middlewares go around this one.

    Args:
        app: The app.
        pumps: Functions that run as long as the app does: a list of async functions, or of `Pump`
            objects if they need options; or a `Pumps` collection, which may be filled until the app
            starts.
        jobs: The `quattro_web.jobs.Jobs` of the app: functions that its handlers can run in other
            processes.
        concurrency_limit: How many children of one request may run at once. None means no limit.
        total_limit: How many children of all requests together may run at once, per event loop; the
            others wait. None means no limit.
        max_waiting: How many children may wait for *total_limit*. If a request starts one more, it
            is answered with a 503 and Retry-After, unless the app handles `TooManyWaitingError`
            itself. None means no limit.
        cancel_on_disconnect: Whether a request is cancelled when its client disconnects.
            `quattro_web.cancel_on_disconnect` sets it for one request.
        deadline: After how many seconds an HTTP request is cancelled and answered with a 504, if
            its response is not complete by then or, for a stream, has not begun.
            `quattro_web.set_deadline` sets it for one request. None means no deadline. A dict gives
            each path its own: ``{"/": 30, "/reports": 120, "/events": None}``. A key applies to its
            path and all paths below it, also in mounted apps, and the longest match wins:
            ``"/events"`` applies to ``/events/5``, but not to ``/eventsource``. Paths are those of
            the routes of *app*, without a ``root_path``.
        stream_deadline: After how many seconds, also counted from the start of the request, a
            stream is cut if it is not complete: a number, or a dict by path. It must not be shorter
            than *deadline*; a number applies only to paths that have a *deadline*. None means that
            a stream, once begun, has no deadline.
        deadline_header: The name of a request header in which a client may give a shorter
            *deadline*, in seconds, also on a route with its own, or one without any. Values that
            are not positive numbers are ignored. None means no such header.
        app_concurrency_limit: How many handed-over tasks (`app_task_group`) may run at once; the
            others wait. None means no limit.
        app_max_waiting: How many handed-over tasks may wait for *app_concurrency_limit*. A request
            that hands over one more is answered with a 503, as with *max_waiting*. None means no
            limit.
        shutdown_grace: The seconds that each part of a shutdown may take. None means the defaults
            of `ShutdownGrace`.
        dump_signal: A signal, such as ``signal.SIGUSR1``, that makes the process log the result of
            `quattro_web.tasks.app_tasks`, even while its event loop is blocked. None means no such
            signal.
        child_spans: Whether each child of a request gets its own OpenTelemetry span, if the app is
            traced when it starts. A span costs more time than a small child does.

    Raises:
        RuntimeError: If it was already called for this app, or if the app has begun to serve.
        TypeError: If *app* is another ASGI app (use `TaskGroupMiddleware`); if a pump is not a
            function or takes other arguments; if another argument has the wrong type.
        ValueError: If a limit is below 1; if a maximum of waiting tasks is given without its limit;
            if two pumps have the same name or lock; if a deadline is not positive and finite, or
            its key is not a path; if *stream_deadline* is shorter than *deadline*; if
            *deadline_header* is not a header name; if *dump_signal* is not a signal, or one with
            another meaning.

    .. versionadded:: 0.1
    """
    if not isinstance(app, Starlette):
        msg = f"app must be a Starlette or FastAPI app, got {app!r}: wrap it in TaskGroupMiddleware"
        raise TypeError(msg)
    present: list[object] = [middleware.cls for middleware in app.user_middleware]
    if TaskGroupMiddleware in present or same_around in present:
        msg = f"{app!r} has its TaskGroupMiddleware already: call install(app) once"
        raise RuntimeError(msg)
    if app.middleware_stack is not None:
        msg = f"{app!r} has begun to serve: call install(app) before its first request or lifespan"
        raise RuntimeError(msg)
    if jobs is not None:
        # The same collection for all: it may be filled until the app starts.
        given, pumps = pumps, Pumps(jobs.pumps_for(app))
        pumps.include(given if isinstance(given, Pumps) else Pumps(given))
    prototype = TaskGroupMiddleware(
        app,
        pumps=pumps,
        concurrency_limit=concurrency_limit,
        total_limit=total_limit,
        max_waiting=max_waiting,
        cancel_on_disconnect=cancel_on_disconnect,
        deadline=deadline,
        stream_deadline=stream_deadline,
        deadline_header=deadline_header,
        app_concurrency_limit=app_concurrency_limit,
        app_max_waiting=app_max_waiting,
        shutdown_grace=shutdown_grace,
        dump_signal=dump_signal,
        child_spans=child_spans,
    )
    # Starlette inserts what is added at the front of the list: its end is the innermost place.
    app.user_middleware.append(Middleware(same_around, prototype))
