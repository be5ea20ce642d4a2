"""The task groups and the shutdown event, as parameters of FastAPI handlers and dependencies.

One rule for the names: ``quattro_web.fastapi.X`` is ``quattro_web.X``, injected by FastAPI.
"""

from __future__ import annotations

from typing import Annotated

from starlette.requests import HTTPConnection

from quattro_core import TaskGroup
from quattro_web._app import group as app_group
from quattro_web._request import cancellation, exchange
from quattro_web._shutdown import state
from quattro_web._util.arguments import checked_limit, checked_seconds, checked_stream

try:
    from fastapi import Depends, params
except ModuleNotFoundError as _exc:
    msg = "quattro_web.fastapi needs FastAPI: pip install 'quattro-web[fastapi]'"
    raise ModuleNotFoundError(msg, name=_exc.name) from _exc

__all__ = [
    "AppTaskGroup",
    "CancelOnDisconnect",
    "ConcurrencyLimit",
    "Deadline",
    "RequestTaskGroup",
    "ShutdownEvent",
    "get_app_task_group",
    "get_request_task_group",
    "get_shutdown_event",
]


# Coroutine functions, since FastAPI runs others in a thread; not with yield, which costs as much
# as a whole plain request, and closes at a time of FastAPI's.
async def get_request_task_group(conn: HTTPConnection) -> TaskGroup:
    """Return the group that `RequestTaskGroup` stands for: its key in ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If the app is not installed.

    .. versionadded:: 0.1
    """
    return exchange.request_task_group(conn)


async def get_app_task_group(conn: HTTPConnection) -> app_group.AppTaskGroup:
    """Return the group that `AppTaskGroup` stands for: its key in ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If the app has none: it is not installed, or its lifespan was not run.

    .. versionadded:: 0.1
    """
    return app_group.app_task_group(conn)


RequestTaskGroup = Annotated[TaskGroup, Depends(get_request_task_group)]
"""The task group of the current request or WebSocket connection, for a handler or a dependency.

::

    @app.get("/search")
    async def search(q: str, tg: RequestTaskGroup) -> list[str]: ...

See `quattro_web.request_task_group`.

.. versionadded:: 0.1
"""

AppTaskGroup = Annotated[app_group.AppTaskGroup, Depends(get_app_task_group)]
"""The app's task group, for work that outlives the response: `quattro_web.AppTaskGroup`, injected.

See `quattro_web.app_task_group`.

.. versionadded:: 0.1
"""


async def get_shutdown_event(conn: HTTPConnection) -> state.ShutdownEvent:
    """Return the event that `ShutdownEvent` stands for: its key in ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If there is none: the app is not installed, or its lifespan was not run.

    .. versionadded:: 0.1
    """
    return app_group.shutdown_event(conn)


ShutdownEvent = Annotated[state.ShutdownEvent, Depends(get_shutdown_event)]
"""The event that is set when the server begins to shut down: `quattro_web.ShutdownEvent`, injected.

For a handler or a dependency; it may also annotate pumps that take ``shutdown``, and helpers. See
`quattro_web.shutdown_event`.

.. versionadded:: 0.1
"""


def Deadline(  # noqa: N802  # named as FastAPI's Depends
    seconds: float | None, *, stream: float | None = None
) -> params.Depends:
    """Return a dependency that gives one route a deadline.

    ::

        @app.get("/report", dependencies=[Deadline(30)])
        async def report() -> Report: ...

    The time runs from when the dependency is solved. See `quattro_web.set_deadline`.

    Args:
        seconds: A positive number of seconds, until an ordinary response is complete, or a stream
            begins. None means that there is no deadline.
        stream: A number of seconds, at least as many, until a stream is complete. None means that a
            stream which has begun has no deadline.

    Raises:
        TypeError: If *seconds* or *stream* is not a number.
        ValueError: If *seconds* or *stream* is not positive and finite; if *stream* is less than
            *seconds*, or if there are no *seconds* with it.

    .. versionadded:: 0.1
    """
    checked_seconds("seconds", seconds)
    checked_stream("stream", stream, "seconds", seconds)

    async def set_deadline(conn: HTTPConnection) -> None:
        cancellation.set_deadline(conn, seconds, stream=stream)

    return params.Depends(set_deadline)


def CancelOnDisconnect(*, on: bool = True) -> params.Depends:  # noqa: N802  # as FastAPI's Depends
    """Return a dependency that has one route cancelled when its client leaves.

    ::

        @app.get("/report", dependencies=[CancelOnDisconnect()])
        async def report() -> Report: ...

    See `quattro_web.cancel_on_disconnect`.

    Args:
        on: Whether it is cancelled; False for a route of an app whose others are.

    .. versionadded:: 0.1
    """

    async def cancel_on_disconnect(conn: HTTPConnection) -> None:
        cancellation.cancel_on_disconnect(conn, on=on)

    return params.Depends(cancel_on_disconnect)


def ConcurrencyLimit(limit: int | None) -> params.Depends:  # noqa: N802  # as FastAPI's Depends
    """Return a dependency that limits how many children of a request run at once, on one route.

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

    return params.Depends(set_concurrency_limit)
