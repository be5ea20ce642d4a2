"""The app's task group and its shutdown, as handlers and the programs around the app get them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from quattro_web._app.lookup import all_runs_of, run_of
from quattro_web._app.run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._shutdown.state import ShutdownEvent
from quattro_web._util.escaping import escaped
from quattro_web._util.injection import schema_of_injected
from quattro_web._util.scope import Connection, describe, scope_of

T = TypeVar("T")


class AppTaskGroup:
    """The app's task group, for work that outlives the response it is started for.

    `app_task_group` returns one, for the request that asks for it. FastAPI injects it where a
    handler or a dependency annotates `quattro_web.fastapi.AppTaskGroup`.

    .. versionadded:: 0.1
    """

    __slots__ = ("_origin", "_run", "_scope")

    def __init__(self, run: AppRun, origin: str, scope: Connection) -> None:
        self._run = run
        self._origin = origin
        self._scope = scope

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
        nothing. The files that FastAPI has read from the request stay open until it has ended.

        Args:
            coro: A coroutine, or a function of no arguments that returns one.
            name: The name of the task, which the log shows; by default the function's.
            context: The context that it runs in; None means a copy of the current one, so that the
                request's context variables are seen.

        Returns:
            The task; its result is None if it failed.

        Raises:
            AppBusyError: If as much is waiting as may, by ``install(app, app_max_waiting=...)``.
                The client gets a 503 and may try again, but work that the request has handed over
                before goes on: hand it over with `create_tasks`, all at once, or make it harmless
                to do twice.
            RuntimeError: If the app has shut down, or in another thread than the event loop's. The
                coroutine is closed.
            TypeError: If *coro* is neither a coroutine nor a function.

        .. versionadded:: 0.1
        """
        return self._run.hand_over(
            coro, scope=self._scope, origin=self._origin, name=name, context=context
        )

    def create_tasks(
        self,
        *coros: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
        context: Context | None = None,
    ) -> tuple[asyncio.Task[T | None], ...]:
        """Hand several pieces of work over to the app: all of them, or none.

        Each is work like that of `create_task`, and counts as one for the limits of the app. If
        there is no room for all of them, none is started.

        Args:
            *coros: Coroutines, or functions of no arguments that return one.
            context: The context that they run in; None means a copy of the current one for each.

        Returns:
            The tasks, in the order of *coros*.

        Raises:
            AppBusyError: If so many can't wait, by ``install(app, app_max_waiting=...)``.
            RuntimeError: As with `create_task`. The coroutines are closed.
            TypeError: If one of *coros* is neither a coroutine nor a function.

        .. versionadded:: 0.1
        """
        return self._run.hand_over_all(
            coros, scope=self._scope, origin=self._origin, context=context
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], T]) -> T:
        return schema_of_injected(cls, source, handler)


def app_task_group(conn: Connection) -> AppTaskGroup:
    """Return the app's task group, for work that outlives this request's response.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If the app has none: it is not installed, or its lifespan was not run.
        TypeError: If *conn* is none of these, but the app itself.

    .. versionadded:: 0.1
    """
    return AppTaskGroup(run_of(conn), _origin(conn), scope_of(conn))


def shutdown_event(conn: Connection) -> ShutdownEvent:
    """Return the event that is set when the server begins to shut down.

    It is set at the signal that the server gets, long before the lifespan's shutdown, so that
    handlers, streams and WebSockets can end in time.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If there is none: the app is not installed, or its lifespan was not run.
        TypeError: If *conn* is none of these, but the app itself.

    .. versionadded:: 0.1
    """
    return run_of(conn).shutdown.event


def begin_shutdown(app: Any) -> None:
    """Begin the shutdown of an app, where nothing else tells that its server is about to stop.

    At a signal, and where uvicorn, hypercorn or granian are stopped in the program that runs them,
    the shutdown begins by itself. Call this where you stop another server, just before you do::

        begin_shutdown(app)
        server.stop()

    In the next turn of the app's event loop the shutdown event is set, and from then on the time of
    `ShutdownGrace` counts. No server is stopped by it. Any thread may call it, and a signal
    handler. Nothing happens if the shutdown has begun or if the app has ended; of an app that is
    still starting, no pump is started.

    Args:
        app: The app that was installed, that has a `task_group_lifespan`, or the
            `TaskGroupMiddleware` around another ASGI app.

    Raises:
        NoTaskGroupError: If its lifespan was never run in this process.

    .. versionadded:: 0.1
    """
    runs = all_runs_of(app)
    if runs is None:
        msg = (
            f"{app!r} has not run, so it can't be shut down: call quattro_web.install(app), and "
            "begin_shutdown(app) when the server has begun to run its lifespan"
        )
        raise NoTaskGroupError(msg)
    for run in runs:
        run.announce_shutdown()


def _origin(conn: Connection) -> str:
    """Return how logs name where work comes from: with the id of the request, if it has one."""
    ids = (value for name, value in conn.get("headers", ()) if name == b"x-request-id")
    request_id = next(ids, None)
    if request_id is None:
        return describe(conn)
    # A quote in it would end it, and what follows look like a part of the entry.
    shown = escaped(request_id.decode("latin-1")).replace("'", r"\'")
    return f"{describe(conn)} (request id '{shown}')"
