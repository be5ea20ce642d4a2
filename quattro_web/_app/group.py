"""The app's task group and its shutdown, as handlers and surrounding programs get them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Annotated, Any, Never, ParamSpec, TypeVar

from quattro_core._tasks import NotHere, refuse_arguments
from quattro_core._workers import process_child, thread_child
from quattro_web._app.lookup import all_runs_of, run_of
from quattro_web._app.run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._shutdown.state import ShutdownEvent
from quattro_web._util.escaping import escaped
from quattro_web._util.injection import CalledWith, NotInjected, schema_of_injected
from quattro_web._util.scope import Connection, describe, scope_of

T = TypeVar("T")
P = ParamSpec("P")


_WAITS = (
    "await tg.{} with the request's group, tg: RequestTaskGroup, or hand over one coroutine that "
    "does so in async with quattro_web.TaskGroup() as tg"
)
# Where FastAPI takes the class itself for a dependency.
_Run = Annotated[AppRun, NotInjected("app_tg: quattro_web.fastapi.AppTaskGroup, without Depends")]
_OPEN = "app_tg.create_task(...) as it is, since it is open as long as the app"


class AppTaskGroup:
    """The app's task group, for work that outlives the response that started it.

    `app_task_group` returns it for a request. In FastAPI, annotate a parameter of a handler or a
    dependency with `quattro_web.fastapi.AppTaskGroup`.

    .. versionadded:: 0.1
    """

    __slots__ = ("_origin", "_run", "_scope")

    def __init__(self, run: _Run, origin: str, scope: Connection) -> None:
        self._run = run
        self._origin = origin
        self._scope = scope

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
        *args: Never,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T | None]:
        """Hand work over to the app: it keeps running after the response is complete.

        It is not cancelled with the request. At shutdown, the app waits for it before ending the
        pumps. If it fails, the log has the error and the request that handed it over; nothing else
        stops. Files that FastAPI has read from the request stay open until the task ends.

        Args:
            coro: A coroutine, or a function without arguments that returns one.
            *args: Not allowed: a `TypeError` says how to pass them to the function.
            name: The name of the task, shown in the log; by default the function's.
            context: The context that it runs in; None means a copy of the current one, so the task
                sees the request's context variables.

        Returns:
            The task; its result is None if it failed. In a worker thread, such as that of a ``def``
            endpoint, this returns a `quattro_core.TaskFuture` instead, which the thread can wait
            for.

        Raises:
            AppBusyError: If as much work is waiting as ``install(app, app_max_waiting=...)``
                allows. The client gets a 503 and may retry, but work that the request handed over
                earlier keeps running: hand everything over at once with `create_tasks`, or make the
                work idempotent.
            RuntimeError: If the app has shut down, or in a thread that no task of the event loop
                waits for. The coroutine is closed.
            TypeError: If *coro* is neither a coroutine nor a function.

        .. versionadded:: 0.1
        """
        if args:
            refuse_arguments("create_task", coro, args)
        return self._run.hand_over(
            coro, scope=self._scope, origin=self._origin, name=name, context=context
        )

    def create_tasks(
        self,
        *coros: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
        context: Context | None = None,
    ) -> tuple[asyncio.Task[T | None], ...]:
        """Hand several tasks over to the app: all of them, or none.

        Each is handed over as by `create_task`, and counts as one for the app's limits. If there is
        no room for all of them, none is started.

        Args:
            *coros: Coroutines, or functions without arguments that return one.
            context: The context that they run in; None means a copy of the current one for each.

        Returns:
            The tasks, in the order of *coros*; in a worker thread, their futures.

        Raises:
            AppBusyError: If that would exceed ``install(app, app_max_waiting=...)``.
            RuntimeError: As with `create_task`. The coroutines are closed.
            TypeError: If one of *coros* is neither a coroutine nor a function.

        .. versionadded:: 0.1
        """
        return self._run.hand_over_all(
            coros, scope=self._scope, origin=self._origin, context=context
        )

    def run_in_thread(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Task[T | None]:
        """Call a blocking function in a thread, as handed-over work.

        A thread can't be cancelled: the shutdown waits for the function even after the grace
        period, up to its overall time limit. See `quattro_core.TaskGroup.run_in_thread`.

        Args:
            function: The function.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The same as `create_task`.

        Raises:
            AppBusyError: As with `create_task`.
            RuntimeError: As with `create_task`.
            TypeError: If *function* is not callable, or is a coroutine function.

        .. versionadded:: 0.1
        """
        return self.create_task(thread_child(function, args, kwargs))

    def run_in_process(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Task[T | None]:
        """Call a CPU-bound function in another process, as handed-over work.

        At shutdown, the process is killed after the grace period. See
        `quattro_core.TaskGroup.run_in_process`.

        Args:
            function: A function at the top level of a module, or a method. The function, its
                arguments and its result are pickled.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The same as `create_task`.

        Raises:
            AppBusyError: As with `create_task`.
            RuntimeError: As with `create_task`.
            TypeError: If *function* is not callable, or is a coroutine function.

        .. versionadded:: 0.1
        """
        return self.create_task(process_child(function, args, kwargs))

    # Where there is a method, it waits; and what is handed over is waited for by nobody.
    gather: NotHere = NotHere(_WAITS.format("gather(...)"))
    map: NotHere = NotHere(_WAITS.format("map(...)"))
    create_background_task: NotHere = NotHere(
        "create_task(function(...)), or install(app, pumps=[function]) for what runs as long as "
        "the app"
    )
    add_task: NotHere = NotHere("create_task(function(...)), which takes a coroutine")
    start_soon: NotHere = NotHere("create_task(function(...)), which takes a coroutine")
    __aenter__: NotHere = NotHere(_OPEN, called="async with")
    __aexit__: NotHere = NotHere(_OPEN, called="async with")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], T]) -> T:
        return schema_of_injected(cls, source, handler)


def app_task_group(conn: CalledWith) -> AppTaskGroup:
    """Return the app's task group, for work that outlives this request's response.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If the app has none: it is not installed, or its lifespan never ran.
        TypeError: If *conn* is something else, such as the app itself.

    .. versionadded:: 0.1
    """
    return AppTaskGroup(run_of(conn), _origin(conn), scope_of(conn))


def shutdown_event(conn: CalledWith) -> ShutdownEvent:
    """Return the event that is set when the server begins to shut down.

    It is set as soon as the server gets its signal, long before the lifespan's shutdown, so that
    handlers, streams and WebSockets can end in time.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If there is none: the app is not installed, or its lifespan never ran.
        TypeError: If *conn* is something else, such as the app itself.

    .. versionadded:: 0.1
    """
    return run_of(conn).shutdown.event


def begin_shutdown(app: Any) -> None:
    """Begin an app's shutdown, where it can't see for itself that its server is about to stop.

    After a signal, the shutdown begins automatically, as it does when your program stops uvicorn,
    hypercorn or granian. Call this just before your program stops any other server::

        begin_shutdown(app)
        server.stop()

    The shutdown event is set in the next iteration of the app's event loop, and the time of
    `ShutdownGrace` counts from then. This does not stop the server itself. Any thread may call it,
    and so may a signal handler. It does nothing if the shutdown has begun or the app has ended. If
    the app is still starting, its pumps are not started.

    Args:
        app: The app passed to `install`, an app with a `task_group_lifespan`, or the
            `TaskGroupMiddleware` around another ASGI app.

    Raises:
        NoTaskGroupError: If the app's lifespan never ran in this process.

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
