"""The app group in the lifespan of the app."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web._app_tasks import AppTasks
from quattro_web._pumps import PumpFunction, checked_pumps
from quattro_web._scope import APP

AppT_contra = TypeVar("AppT_contra", contravariant=True)

logger = logging.getLogger("quattro_web")


class Lifespan(Protocol[AppT_contra]):
    """What Starlette and FastAPI take as ``lifespan``."""

    def __call__(
        self, app: AppT_contra, /
    ) -> AbstractAsyncContextManager[Mapping[str, Any] | None]: ...


class _ComposedLifespan(Protocol[AppT_contra]):
    def __call__(self, app: AppT_contra, /) -> AbstractAsyncContextManager[Mapping[str, Any]]: ...


def task_group_lifespan(
    *pumps: PumpFunction, lifespan: Lifespan[AppT_contra] | None = None
) -> _ComposedLifespan[AppT_contra]:
    """Return a lifespan that runs the app group inside of *lifespan*.

    For those who put the lifespan together themselves; `install` does the same for the whole app.
    The resources of *lifespan* are there before the first pump starts, and are torn down after the
    last one has ended. What it yields is passed on.

    Args:
        *pumps: Async functions of no arguments, or of one, which is what *lifespan* has yielded.
            Each runs as a background task of the app group until the app shuts down. One that
            fails is logged with its traceback, and the server is asked to shut down gracefully;
            the others, and the requests that are being served, go on until it does.
        lifespan: The app's own lifespan.

    Raises:
        TypeError: If a pump is not a function, or takes other arguments.

    .. versionadded:: 0.1
    """
    checked = checked_pumps(pumps)

    @asynccontextmanager
    async def composed(app: AppT_contra) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            state: Mapping[str, Any] = {}
            if lifespan is not None:
                yielded = await stack.enter_async_context(lifespan(app))
                state = yielded or {}
            tasks = AppTasks(checked)
            stack.push_async_callback(tasks.stop)
            await tasks.start(state)
            yield {**state, APP: tasks}
        tasks.raise_untold()

    return composed


async def serve_lifespan(
    app: ASGIApp, tasks: AppTasks, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run *app* for its lifespan, with the app group inside of whatever it opens for itself.

    The group starts when the app says that its start-up is complete, and ends before the app is
    told to shut down. So it composes with every lifespan, also with those of routers that are
    included later, which FastAPI puts inside of the one that is there.
    """
    answered = False

    async def send_when_started(message: Message) -> None:
        nonlocal answered
        answered = True
        if message["type"] == "lifespan.startup.complete":
            await tasks.start(scope.get("state", {}))
        if message["type"] == "lifespan.shutdown.complete":
            try:
                tasks.raise_untold()
            except BaseException as exc:
                await send({"type": "lifespan.shutdown.failed", "message": repr(exc)})
                raise
        await send(message)

    async def receive_when_ended() -> Message:
        try:
            return await receive()
        finally:
            if answered:  # this is the shutdown, or the end of the server's patience
                await tasks.stop()

    try:
        await app(scope, receive_when_ended, send_when_started)
    finally:
        if tasks.has_pumps and not answered:
            logger.error("the app has no ASGI lifespan of its own, so none of its pumps can run")
        await tasks.stop()
