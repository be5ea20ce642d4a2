"""The app group, as handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from quattro_web._app_run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._scope import APP, REQUEST, Connection, describe, scope_of
from quattro_web._shutdown import ShutdownEvent

T = TypeVar("T")


class AppGroup:
    """The app's task group, for work that outlives the response it is started for.

    `app_task_group` makes one, bound to the request that it was asked for in.

    .. versionadded:: 0.1
    """

    __slots__ = ("_origin", "_run")

    def __init__(self, tasks: AppRun, origin: str) -> None:
        self._run = tasks
        self._origin = origin

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T | None]:
        """Hand work over to the app: it goes on when the response is complete.

        It is not cancelled with the request, and is waited for when the app shuts down, before the
        pumps are ended. Its failure is logged, with the request that handed it over, and stops
        nothing.

        Args:
            coro: A coroutine, or a function of no arguments that returns one.
            name: The name of the task, which the log shows; by default the function's.
            context: The context that it runs in; None means a copy of the current one, so that the
                request's context variables are seen.

        Returns:
            The task; its result is None if it failed.

        Raises:
            AppBusyError: If as much is waiting as may, by ``install(app, app_max_waiting=...)``.
            RuntimeError: If the app has shut down, or in another thread than the event loop's. The
                coroutine is closed.
            TypeError: If *coro* is neither a coroutine nor a function.

        .. versionadded:: 0.1
        """
        return self._run.hand_over(coro, origin=self._origin, name=name, context=context)


def app_task_group(conn: Connection) -> AppGroup:
    """Return the app's task group, for work that outlives this request's response.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If the app has none: it is not installed, or its lifespan was not run.
        TypeError: If *conn* is none of these, but the app itself.

    .. versionadded:: 0.1
    """
    return AppGroup(run_of(conn), _origin(conn))


def shutdown_event(conn: Connection) -> ShutdownEvent:
    """Return what tells a handler, a stream or a WebSocket that the server is shutting down.

    It is set at the signal that the server gets, long before the lifespan of the app is told.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If nothing can tell: the app is not installed, or its lifespan was not
            run.
        TypeError: If *conn* is none of these, but the app itself.

    .. versionadded:: 0.1
    """
    return run_of(conn).shutdown.event


def run_of(conn: Connection) -> AppRun:
    """Return what runs as long as the app does, from a request to it.

    Raises:
        NoTaskGroupError: If nothing does.
        TypeError: If *conn* is none.
    """
    scope = scope_of(conn)
    request = scope.get(REQUEST)
    run: AppRun | None = (request and request.app_run()) or scope.get("state", {}).get(APP)
    if run is None or not run.has_started:
        msg = (
            "no app task group: call quattro_web.install(app), or give the app "
            "lifespan=quattro_web.task_group_lifespan(), and run its lifespan: servers do unless "
            "they are told not to, for the outermost app and not for one that is mounted in it; a "
            "TestClient does so in its with block, httpx.ASGITransport does not"
        )
        raise NoTaskGroupError(msg)
    return run


def _origin(conn: Connection) -> str:
    """Return how logs name where work comes from: with the id of the request, if it has one."""
    ids = (value for name, value in conn.get("headers", ()) if name == b"x-request-id")
    request_id = next(ids, None)
    if request_id is None:
        return describe(conn)
    return f"{describe(conn)} (request id {request_id.decode('latin-1')!r})"
