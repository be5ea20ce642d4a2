"""Parameters for FastAPI handlers and dependencies, and dependencies for routes.

``quattro_web.fastapi.X`` is ``quattro_web.X``, injected by FastAPI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, cast

from starlette.requests import HTTPConnection

from quattro_core import TaskGroup
from quattro_web._app import group as app_group
from quattro_web._request import cancellation, exchange
from quattro_web._shutdown import state
from quattro_web._tree import routes
from quattro_web._util.arguments import (
    checked_bool,
    checked_limit,
    checked_seconds,
    checked_stream,
)
from quattro_web._util.injection import NotInjected, refuse_as_dependency

try:
    from fastapi import APIRouter, Depends, params
except ModuleNotFoundError as _exc:
    msg = "quattro_web.fastapi needs FastAPI: pip install 'quattro-web[fastapi]'"
    raise ModuleNotFoundError(msg, name=_exc.name) from _exc

__all__ = [
    "AppTaskGroup",
    "CancelOnDisconnect",
    "ConcurrencyLimit",
    "Deadline",
    "RequestTaskGroup",
    "RouteDependency",
    "ShutdownEvent",
    "TimeLeft",
    "get_app_task_group",
    "get_request_task_group",
    "get_shutdown_event",
    "get_time_left",
    "task_router",
]


# Coroutine functions, since FastAPI runs others in a thread; not with yield, which costs as much
# as a whole plain request, and closes at a time of FastAPI's.
async def get_request_task_group(conn: HTTPConnection) -> TaskGroup:
    """Return the group that `RequestTaskGroup` injects; a key for ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If the app is not installed.

    .. versionadded:: 0.1
    """
    return exchange.request_task_group(conn)


async def get_app_task_group(conn: HTTPConnection) -> app_group.AppTaskGroup:
    """Return the group that `AppTaskGroup` injects; a key for ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If the app has none: it is not installed, or its lifespan never ran.

    .. versionadded:: 0.1
    """
    return app_group.app_task_group(conn)


RequestTaskGroup = Annotated[TaskGroup, Depends(get_request_task_group)]
"""The task group of the current request or WebSocket connection, for a handler or a dependency.

::

    @app.get("/search")
    async def search(q: str, tg: RequestTaskGroup) -> list[str]: ...

Works in ``def`` handlers too. See `quattro_web.request_task_group`.

.. versionadded:: 0.1
"""

AppTaskGroup = Annotated[app_group.AppTaskGroup, Depends(get_app_task_group)]
"""The app's task group, for work that outlives the response: `quattro_web.AppTaskGroup`, injected.

See `quattro_web.app_task_group`.

.. versionadded:: 0.1
"""


async def get_time_left(conn: HTTPConnection) -> Callable[[], float | None]:
    """Return the function that `TimeLeft` injects; a key for ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If the app is not installed.

    .. versionadded:: 0.1
    """
    cancellation.time_left(conn)  # which raises that
    return partial(cancellation.time_left, conn)


async def get_shutdown_event(conn: HTTPConnection) -> state.ShutdownEvent:
    """Return the event that `ShutdownEvent` injects; a key for ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If there is none: the app is not installed, or its lifespan never ran.

    .. versionadded:: 0.1
    """
    return app_group.shutdown_event(conn)


ShutdownEvent = Annotated[state.ShutdownEvent, Depends(get_shutdown_event)]
"""The event that is set when the server begins to shut down: `quattro_web.ShutdownEvent`, injected.

Use it in handlers and dependencies; pumps and helpers may use it too. See
`quattro_web.shutdown_event`.

.. versionadded:: 0.1
"""


TimeLeft = Annotated[Callable[[], float | None], Depends(get_time_left)]
"""A function that returns the seconds until the request's deadline; call it for each timeout.

::

    @app.get("/rates", dependencies=[Deadline(5)])
    async def rates(time_left: TimeLeft) -> Rates:
        async with asyncio.timeout(time_left()):
            return await fetch_rates()

See `quattro_web.time_left`.

.. versionadded:: 0.1
"""

# What is wrong is an error when the route is added, and not a query of the client's.
for _alias, _name in (
    (RequestTaskGroup, "tg: RequestTaskGroup"),
    (AppTaskGroup, "app_tg: AppTaskGroup"),
    (ShutdownEvent, "shutdown: ShutdownEvent"),
    (TimeLeft, "time_left: TimeLeft"),
):
    refuse_as_dependency(_alias, f"{_name} as a parameter, without Depends")
    # dependencies=[alias]: FastAPI asks for these attributes alone.
    vars(_alias).update(vars(params.Depends(cast("Any", _alias))))
del _alias, _name


class RouteDependency(params.Depends):
    """The dependency that `Deadline` and others return, for ``dependencies=[...]`` or ``Depends``.

    .. versionadded:: 0.1
    """

    async def __call__(self, conn: HTTPConnection) -> None:
        """Do what the dependency does, where FastAPI calls it as that of a ``Depends``."""
        assert self.dependency is not None
        await self.dependency(conn)

    def __hash__(self) -> int:  # older versions of FastAPI have none, and need one
        return hash(self.dependency)


# Evaluated by now: older versions of FastAPI can't do that for the `__call__` of an object.
RouteDependency.__call__.__annotations__["conn"] = HTTPConnection


def Deadline(  # noqa: N802  # named as FastAPI's Depends
    seconds: Annotated[float | None, NotInjected("Deadline(30), with a number of seconds")],
    *,
    stream: float | None = None,
) -> RouteDependency:
    """Return a dependency that gives one route a deadline.

    ::

        @app.get("/report", dependencies=[Deadline(30)])
        async def report() -> Report: ...

    The time runs from when FastAPI resolves the dependency. See `quattro_web.set_deadline`.

    Args:
        seconds: The seconds until an ordinary response must be complete, or a stream must begin.
            None means no deadline.
        stream: The seconds until a stream must be complete, at least *seconds*. None means that a
            stream, once begun, has no deadline.

    Raises:
        TypeError: If *seconds* or *stream* is not a number.
        ValueError: If *seconds* or *stream* is not positive and finite; if *stream* is less than
            *seconds*, or given without *seconds*.

    .. versionadded:: 0.1
    """
    checked_seconds("seconds", seconds)
    checked_stream("stream", stream, "seconds", seconds)

    async def set_deadline(conn: HTTPConnection) -> None:
        cancellation.set_deadline(conn, seconds, stream=stream)

    return RouteDependency(set_deadline)


def CancelOnDisconnect(  # noqa: N802  # as FastAPI's Depends
    *, on: Annotated[bool, NotInjected("CancelOnDisconnect(), called")] = True
) -> RouteDependency:
    """Return a dependency that cancels one route's requests when their clients disconnect.

    ::

        @app.get("/report", dependencies=[CancelOnDisconnect()])
        async def report() -> Report: ...

    See `quattro_web.cancel_on_disconnect`.

    Args:
        on: Whether to cancel them; False exempts a route of an app that cancels all others.

    Raises:
        TypeError: If *on* is not a bool.

    .. versionadded:: 0.1
    """
    checked_bool("on", on)

    async def cancel_on_disconnect(conn: HTTPConnection) -> None:
        cancellation.cancel_on_disconnect(conn, on=on)

    return RouteDependency(cancel_on_disconnect)


# dependencies=[CancelOnDisconnect] is as good: FastAPI asks for these attributes alone.
vars(CancelOnDisconnect).update(vars(CancelOnDisconnect()))


def ConcurrencyLimit(  # noqa: N802  # as FastAPI's Depends
    limit: Annotated[int | None, NotInjected("ConcurrencyLimit(3), with a number of children")],
) -> RouteDependency:
    """Return a dependency that limits, for one route, how many children of a request run at once.

    ::

        @app.get("/search", dependencies=[ConcurrencyLimit(3)])
        async def search(q: str, tg: RequestTaskGroup) -> list[str]: ...

    See `quattro_web.set_concurrency_limit`.

    Args:
        limit: At least 1. None means no limit.

    Raises:
        TypeError: If *limit* is not an int.
        ValueError: If *limit* is below 1.

    .. versionadded:: 0.1
    """
    checked_limit("limit", limit)

    async def set_concurrency_limit(conn: HTTPConnection) -> None:
        exchange.set_concurrency_limit(conn, limit)

    return RouteDependency(set_concurrency_limit)


# Without an argument they can't be: their own parameter says so.
for _function in (Deadline, ConcurrencyLimit):
    vars(_function).update(vars(params.Depends(_function)))
del _function


def task_router(
    path: str = "/tasks", *, dependencies: Sequence[params.Depends] = (), public: bool = False
) -> APIRouter:
    """Return a router that shows what an app is doing; see `quattro_web.tasks.task_routes`.

    ::

        app.include_router(task_router(dependencies=[Depends(admins_only)]))

    Args:
        path: The path of the snapshot; the page and its event stream are below it.
        dependencies: Dependencies that decide who may see it. Make them async: those work even when
            all threads are busy.
        public: Whether to allow access without any dependencies.

    Raises:
        TypeError: If one of *dependencies* is not a ``Depends(...)``, or *public* not a bool.
        ValueError: If there are no *dependencies* and *public* is not true, or if *path* is not a
            path.

    .. versionadded:: 0.1
    """
    dependencies = tuple(dependencies)
    for dependency in dependencies:
        if not isinstance(dependency, params.Depends):
            msg = f"dependencies must be Depends(...) or Security(...), got {dependency!r}"
            raise TypeError(msg)
    routes.check_guarded("task_router", path, dependencies, public=public)
    router = APIRouter(dependencies=dependencies)
    for each, endpoint in routes.endpoints(path):
        router.add_api_route(each, endpoint, include_in_schema=False, response_model=None)
    return router
