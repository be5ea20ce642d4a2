"""One call that sets an app up."""

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
) -> None:
    """Give a Starlette or FastAPI app its task groups: one for each request, one for the app.

    Call it once, before the app serves; before or after other middlewares are added, which all go
    around it, and before or after routers are included.

    Args:
        app: The app.
        pumps: Functions that run as long as the app does: async functions, or a `Pump` for one with
            options, in a list or in a `Pumps` collection, which may be filled until the app starts.
        jobs: The `quattro_web.jobs.Jobs` of the app, whose functions its handlers call elsewhere.
        concurrency_limit: How many children of one request may run at once. None means no limit.
        total_limit: How many children of all requests together may run at once, in each event loop
            that the app runs in; the others wait. None means no limit.
        max_waiting: How many children may wait for the *total_limit*. The request of one more is
            answered with a 503 and Retry-After, unless the app answers `TooManyWaitingError`
            otherwise. None means no limit.
        cancel_on_disconnect: Whether a request is cancelled when its client leaves; see
            `quattro_web.cancel_on_disconnect`, which says so for one request.
        deadline: After how many seconds an HTTP request is cancelled and answered with a 504, if
            its response is not complete, or has not begun if it is a stream; see
            `quattro_web.set_deadline`, which says so for one request. None means no deadline. A
            dict gives each path its own: ``{"/": 30, "/reports": 120, "/events": None}``. A key
            holds for its path and all paths below it, also in mounted apps, and the longest one
            counts: ``"/events"`` holds for ``/events/5``, not for ``/eventsource``. Paths are as
            the routes of *app* have them, without a ``root_path``.
        stream_deadline: After how many seconds, from the begin of the request as well, a stream is
            cut if it is not complete; a number, or a dict by path. It is at least as long as the
            *deadline*; a number holds only for the paths that have one. None means that a stream
            which has begun has no deadline.
        deadline_header: The name of a request header in which a client may give a shorter
            *deadline*, in seconds. A value that is no positive number is ignored. None means no
            such header.
        app_concurrency_limit: How much handed-over work (`app_task_group`) may run at once; the
            rest waits. None means no limit.
        app_max_waiting: How much of it may wait for that limit. The request that hands over more
            is answered with a 503, as with *max_waiting*. None means no limit.
        shutdown_grace: The seconds that each part of a shutdown may take. None means the defaults
            of `ShutdownGrace`.

    Raises:
        RuntimeError: If it was called before for this app, or if the app has begun to serve.
        TypeError: If *app* is another ASGI app, for which there is `TaskGroupMiddleware`; if a pump
            is not a function or takes other arguments; if another argument is of a wrong type.
        ValueError: If a limit is below 1, or there is none to wait for; if two pumps have the same
            name or lock; if a deadline is not positive and finite, or its key no path; if
            *stream_deadline* is shorter than *deadline*; if *deadline_header* is no name.

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
    )
    # Starlette inserts what is added at the front of the list: its end is the innermost place.
    app.user_middleware.append(Middleware(same_around, prototype))
