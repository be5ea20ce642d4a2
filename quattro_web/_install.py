"""One call that sets an app up."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.middleware import Middleware

from quattro_web._middleware import TaskGroupMiddleware
from quattro_web._pumps import PumpFunction


def install(
    app: Starlette,
    *,
    pumps: Iterable[PumpFunction] = (),
    concurrency_limit: int | None = None,
) -> None:
    """Give a Starlette or FastAPI app its task groups: one for each request, one for the app.

    Call it once, before the app serves; before or after other middlewares are added, which all go
    around it, and before or after routers are included.

    Args:
        app: The app.
        pumps: Async functions of no arguments, or of one, which is the state that the app's
            lifespan has yielded. They run as long as the app does; see `task_group_lifespan`.
        concurrency_limit: How many children of one request may run at once. None means no limit.

    Raises:
        RuntimeError: If it was called before for this app, or if the app has begun to serve.
        TypeError: If a pump is not a function or takes other arguments, or if *concurrency_limit*
            is not an int.
        ValueError: If *concurrency_limit* is below 1.

    .. versionadded:: 0.1
    """
    if any(middleware.cls is TaskGroupMiddleware for middleware in app.user_middleware):
        msg = f"{app!r} has its TaskGroupMiddleware already: call install(app) once"
        raise RuntimeError(msg)
    if app.middleware_stack is not None:
        msg = f"{app!r} has begun to serve: call install(app) before its first request or lifespan"
        raise RuntimeError(msg)
    pumps = tuple(pumps)
    TaskGroupMiddleware(app, pumps=pumps, concurrency_limit=concurrency_limit)  # errors come now
    # Starlette inserts what is added at the front of the list: its end is the innermost place.
    app.user_middleware.append(
        Middleware(TaskGroupMiddleware, pumps=pumps, concurrency_limit=concurrency_limit)
    )
