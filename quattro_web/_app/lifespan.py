"""The lifespan of an app, with the run of its group and its pumps inside."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web._app.lookup import register
from quattro_web._app.run import AppRun, AppSettings
from quattro_web._pumps.pump import Pump, PumpFunction
from quattro_web._shutdown.state import ShutdownGrace
from quattro_web._util.asyncio import current_loop
from quattro_web._util.exceptions import message_of
from quattro_web._util.scope import APP

AppT_contra = TypeVar("AppT_contra", contravariant=True)

logger = logging.getLogger("quattro_web")


class Lifespan(Protocol[AppT_contra]):
    """A lifespan as Starlette and FastAPI take it."""

    def __call__(
        self, app: AppT_contra, /
    ) -> AbstractAsyncContextManager[Mapping[str, Any] | None]: ...


def task_group_lifespan(
    lifespan: Lifespan[AppT_contra] | None = None,
    *,
    pumps: Iterable[Pump | PumpFunction] = (),
    app_concurrency_limit: int | None = None,
    app_max_waiting: int | None = None,
    shutdown_grace: ShutdownGrace | None = None,
) -> Callable[[AppT_contra], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that runs the app's task group inside *lifespan*.

    ::

        app = Starlette(lifespan=task_group_lifespan(lifespan, pumps=[poll]))

    Use this if you compose the lifespan yourself; otherwise `install` does it for you. The
    resources of *lifespan* are opened before the first pump starts, and closed after the last pump
    has ended. The app gets whatever *lifespan* yields.

    Args:
        lifespan: The app's own lifespan, if it has one.
        pumps: As with `install`: async functions, `Pump` objects, or a `Pumps` collection. Each
            runs as a background task of the app group until the app shuts down. If a pump fails,
            its traceback is logged and the server is asked to shut down gracefully; until it does,
            the other pumps and the open requests keep running.
        app_concurrency_limit: As with `install`.
        app_max_waiting: As with `install`.
        shutdown_grace: As with `install`, except for requests: `TaskGroupMiddleware` ends those, by
            its own grace period.

    Raises:
        TypeError: If *lifespan* is not a lifespan but, for example, a pump; if a pump is not a
            function, or takes other arguments; if another argument has the wrong type.
        ValueError: If two pumps have the same name or lock; if a limit is below 1; if
            *app_max_waiting* is given without *app_concurrency_limit*.

    .. versionadded:: 0.1
    """
    _check_lifespan(lifespan)
    settings = AppSettings(
        pumps=pumps,
        app_concurrency_limit=app_concurrency_limit,
        app_max_waiting=app_max_waiting,
        shutdown_grace=shutdown_grace,
    )

    @asynccontextmanager
    async def composed(app: AppT_contra) -> AsyncIterator[Mapping[str, Any]]:
        run = AppRun(settings)
        register(app, run)
        async with AsyncExitStack() as stack:
            stack.callback(run.close)
            run.listen()
            state: Mapping[str, Any] = {}
            if lifespan is not None:
                yielded = await stack.enter_async_context(lifespan(app))
                state = yielded or {}
            stack.push_async_callback(run.stop)
            await run.start(state)
            yield {**state, APP: run}
        run.pumps.raise_failures()

    return composed


def _check_lifespan(lifespan: object) -> None:
    """Raise TypeError before the app starts, if *lifespan* is none."""
    if inspect.isasyncgenfunction(lifespan):
        way_out = "decorate it with @contextlib.asynccontextmanager"
    elif lifespan is None or (callable(lifespan) and not inspect.iscoroutinefunction(lifespan)):
        return
    else:
        way_out = "a pump goes into pumps=[...]"
    msg = f"lifespan must return an async context manager, got {lifespan!r}: {way_out}"
    raise TypeError(msg)


async def serve_lifespan(
    app: ASGIApp, run: AppRun, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run the lifespan of *app*, with the app group inside of all resources that it opens.

    The group starts when the app says that its start-up is complete, and ends before the app is
    told to shut down. So it composes with every lifespan, also with those of routers that are
    included later, which FastAPI puts inside of the one that is there.
    """
    answered = False
    run.listen()

    async def send_when_started(message: Message) -> None:
        nonlocal answered
        if message["type"] == "lifespan.startup.complete":
            await run.start(scope.get("state", {}))
        answered = True
        if message["type"] == "lifespan.shutdown.complete":
            try:
                run.pumps.raise_failures()
            except BaseException as exc:
                await send({"type": "lifespan.shutdown.failed", "message": message_of(exc)})
                raise
        await send(message)

    async def receive_when_ended() -> Message:
        if not answered:
            return await receive()
        try:
            return await _shutdown_of(run, receive)
        finally:
            await run.stop()  # this is the shutdown, or the server waits no longer

    try:
        await app(scope, receive_when_ended, send_when_started)
    finally:
        if run.has_pumps and not answered:
            logger.error("the app has no ASGI lifespan of its own, so none of its pumps can run")
        await run.stop()


async def _shutdown_of(run: AppRun, receive: Receive) -> Message:
    """Wait for the server's ``lifespan.shutdown``.

    The server sends it when all requests have ended. If one of them ignores its cancellation, the
    app shuts down without that message.
    """

    async def receive_one() -> Message:
        return await receive()  # granian's returns no coroutine

    if current_loop() is None:
        return await receive()  # under trio, there is nothing to be stuck
    receiving = asyncio.create_task(receive_one(), name="quattro_web receive")
    stuck = asyncio.create_task(run.wait_stuck(), name="quattro_web stuck")
    try:
        await asyncio.wait((receiving, stuck), return_when=asyncio.FIRST_COMPLETED)
        return receiving.result() if receiving.done() else {"type": "lifespan.shutdown"}
    finally:
        receiving.cancel()
        stuck.cancel()
