"""The ASGI middleware."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import _failures
from quattro_web._app_tasks import AppTasks
from quattro_web._lifespan import serve_lifespan
from quattro_web._pumps import PumpFunction, checked_pumps
from quattro_web._request import EndedRequest, RequestTasks
from quattro_web._scope import REQUEST


class TaskGroupMiddleware:
    """Pure ASGI middleware that gives a task group to each request, and one to the app.

    In Starlette and FastAPI, `install` puts it where it belongs: innermost among the user's
    middlewares, so that the headers that others add (CORS) are also on the answer to a failed
    child. By hand: ``Middleware(TaskGroupMiddleware)`` as the last of the list. It wraps any other
    ASGI app as well.

    Args:
        app: The ASGI app.
        pumps: What runs as long as the app does; see `task_group_lifespan`. Started when the app
            has completed its start-up, ended before it begins its shutdown.
        concurrency_limit: How many children of one request may run at once. None means no limit.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        pumps: Iterable[PumpFunction] = (),
        concurrency_limit: int | None = None,
    ) -> None:
        TaskGroup(concurrency_limit=concurrency_limit)  # a bad limit is an error now
        self.app = app
        self._pumps = checked_pumps(pumps)
        self._limit = concurrency_limit
        self._ended = EndedRequest(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, or the lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            app_tasks = AppTasks(self._pumps)
            self._ended = EndedRequest(app_tasks)
            await serve_lifespan(self.app, app_tasks, scope, receive, send)
            return
        outer: RequestTasks | EndedRequest | None = scope.get(REQUEST)
        if kind not in ("http", "websocket") or (outer is not None and outer.group is not None):
            await self.app(scope, receive, send)
            return
        # In a sub-app with a middleware of its own, this one is nearer to the handler: it answers.
        app_tasks = self._ended.app_tasks or (outer.app_tasks if outer is not None else None)
        tasks = scope[REQUEST] = RequestTasks(scope, send, self._limit, app_tasks)
        error: BaseException | None = None
        try:
            try:
                await self.app(scope, receive, tasks.send)
            except BaseException as exc:
                if tasks.group is None:
                    raise
                error = exc
            if tasks.group is not None:
                await _failures.end(tasks, receive, error)
        finally:
            scope[REQUEST] = outer or self._ended
            del error
