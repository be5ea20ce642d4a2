"""The task groups as FastAPI dependencies."""

from __future__ import annotations

from typing import Annotated

from starlette.requests import HTTPConnection

from quattro_core import TaskGroup
from quattro_web import _app_group, _interrupt, _request_group, _shutdown
from quattro_web._arguments import checked_limit, checked_seconds

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
    return _request_group.request_task_group(conn)


async def get_app_task_group(conn: HTTPConnection) -> _app_group.AppGroup:
    """Return the group that `AppTaskGroup` stands for: its key in ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If the app has none: it is not installed, or its lifespan was not run.

    .. versionadded:: 0.1
    """
    return _app_group.app_task_group(conn)


RequestTaskGroup = Annotated[TaskGroup, Depends(get_request_task_group)]
"""The task group of the current request or WebSocket connection, for a handler or a dependency.

::

    @app.get("/search")
    async def search(q: str, tg: RequestTaskGroup) -> list[str]: ...

See `quattro_web.request_task_group`.

.. versionadded:: 0.1
"""

AppTaskGroup = Annotated[_app_group.AppGroup, Depends(get_app_task_group)]
"""The app's task group, for work that outlives the response. See `quattro_web.app_task_group`.

.. versionadded:: 0.1
"""


async def get_shutdown_event(conn: HTTPConnection) -> _shutdown.ShutdownEvent:
    """Return the event that `ShutdownEvent` stands for: its key in ``dependency_overrides``.

    Raises:
        NoTaskGroupError: If nothing can tell: the app is not installed, or its lifespan was not
            run.

    .. versionadded:: 0.1
    """
    return _app_group.shutdown_event(conn)


ShutdownEvent = Annotated[_shutdown.ShutdownEvent, Depends(get_shutdown_event)]
"""What tells that the server is shutting down. See `quattro_web.shutdown_event`.

For a handler or a dependency; it also annotates pumps that take ``shutdown``, and helpers, as does
the class that it stands for, `quattro_web.ShutdownEvent`.

.. versionadded:: 0.1
"""


def Deadline(seconds: float | None) -> params.Depends:  # noqa: N802  # named as FastAPI's Depends
    """Return a dependency that gives one route a deadline.

    ::

        @app.get("/report", dependencies=[Deadline(30)])
        async def report() -> Report: ...

    The time runs from when the dependency is solved. See `quattro_web.set_deadline`.

    Args:
        seconds: A positive number of seconds. None means that there is no deadline.

    Raises:
        TypeError: If *seconds* is not a number.
        ValueError: If *seconds* is not positive and finite.

    .. versionadded:: 0.1
    """
    checked_seconds("seconds", seconds)

    async def set_deadline(conn: HTTPConnection) -> None:
        _interrupt.set_deadline(conn, seconds)

    return params.Depends(set_deadline)


def CancelOnDisconnect(*, on: bool = True) -> params.Depends:  # noqa: N802
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
        _interrupt.cancel_on_disconnect(conn, on=on)

    return params.Depends(cancel_on_disconnect)


def ConcurrencyLimit(limit: int | None) -> params.Depends:  # noqa: N802
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
        _request_group.set_concurrency_limit(conn, limit)

    return params.Depends(set_concurrency_limit)
