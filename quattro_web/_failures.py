"""How the failure of a request is answered: as if its handler had raised it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from quattro_core import TooManyWaitingError
from quattro_web._errors import DeadlineExceededError
from quattro_web._reason import CancelReason
from quattro_web._request import RequestTasks
from quattro_web._scope import Connection

logger = logging.getLogger("quattro_web")

Handler = Callable[[Any, BaseException], Any]


async def end(tasks: RequestTasks, exc: BaseException | None) -> None:
    """End the group of a request after the app has returned or raised, and answer what failed."""
    conn, tasks.conn = cast("Connection", tasks.conn), None
    stopped = isinstance(exc, asyncio.CancelledError)
    errors = await tasks.close(exc)
    exc = None
    await tasks.unwatch()
    await tasks.settle()
    if tasks.reason is CancelReason.DISCONNECT:
        # What the handler's own read was told is no news, and no failure.
        errors = [error for error in errors if not isinstance(error, ClientDisconnect)]
    if tasks.reason is CancelReason.DEADLINE and not tasks.progress.complete:
        errors.insert(0, DeadlineExceededError())
    if errors:
        tasks.drop()
        await _answer(errors, tasks, _connection(conn, tasks))
    elif tasks.reason is CancelReason.DISCONNECT:
        tasks.drop()  # nobody is there to be answered
    elif stopped and conn["type"] == "http" and not tasks.progress.complete:
        msg = "the request's task group was cancelled before the response was complete"
        raise RuntimeError(msg)
    else:
        await tasks.complete()


async def _answer(errors: list[BaseException], tasks: RequestTasks, conn: HTTPConnection) -> None:
    find = partial(_find_handler, conn)
    error = errors[0] if len(errors) == 1 else _one_of(errors, find)
    progress = tasks.progress
    try:
        if isinstance(conn, WebSocket) and progress.started:
            await _close(conn, error, tasks, find(error))
            return
        handler = None if progress.started or progress.complete else find(error)
        if handler is None:
            raise error
        response = await _call(handler, conn, error)
        if response is not None:
            await response(conn.scope, tasks.inbox.receive, tasks.forward)
    finally:
        del error, errors


async def _close(
    websocket: WebSocket, error: BaseException, tasks: RequestTasks, handler: Handler | None
) -> None:
    """Close a WebSocket that was accepted: by its handler, else with 1011 (internal error)."""
    if isinstance(error, WebSocketDisconnect):
        return  # the client has left, and that is what some child was told
    if handler is not None and not isinstance(error, HTTPException):
        await _call(handler, websocket, error)
    if not tasks.progress.complete:
        await tasks.forward({"type": "websocket.close", "code": 1011, "reason": ""})
        if not isinstance(error, DeadlineExceededError):
            raise error


def _one_of(
    errors: list[BaseException], find: Callable[[BaseException], Handler | None]
) -> BaseException:
    """Choose what is answered when several have failed: a bug is never hidden behind a 404."""
    group = BaseExceptionGroup("several tasks of a request have failed", errors)
    if find(group) is None and all(find(error) for error in errors):
        for other in errors[1:]:
            logger.error("another failure of a request was answered first", exc_info=other)
        return errors[0]
    return group


def _find_handler(conn: HTTPConnection, error: BaseException) -> Handler | None:
    """Find the app's exception handler, as Starlette does; the sub-app's own, in a sub-app."""
    by_class, by_status = conn.scope.get("starlette.exception_handlers", ({}, {}))
    handler = None
    if isinstance(error, HTTPException):
        handler = by_status.get(error.status_code)
    for cls in type(error).__mro__:
        handler = handler or by_class.get(cls)
    if handler is None:  # what is of our own making is answered in any app
        handler = _OWN_HANDLERS.get(type(error))
    return cast("Handler | None", handler)


async def _gateway_timeout(_conn: HTTPConnection, _error: BaseException) -> Response:
    return PlainTextResponse("Gateway Timeout", 504)


async def _service_unavailable(_conn: HTTPConnection, _error: BaseException) -> Response:
    return PlainTextResponse("Service Unavailable", 503, {"retry-after": "1"})


_OWN_HANDLERS: dict[type[BaseException], Handler] = {
    DeadlineExceededError: _gateway_timeout,
    TooManyWaitingError: _service_unavailable,
}


async def _call(handler: Handler, conn: HTTPConnection, error: BaseException) -> Response | None:
    function: Any = handler
    while isinstance(function, partial):
        function = function.func
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
    if is_async:
        return cast("Response | None", await handler(conn, error))
    return cast("Response | None", await run_in_threadpool(handler, conn, error))


def _connection(conn: Connection, tasks: RequestTasks) -> HTTPConnection:
    """Return what a handler is called with: the object of whoever asked for the group.

    It is the one that has read the body, which a new Request could not read again.
    """
    if isinstance(conn, Request | WebSocket):
        return conn
    scope = conn.scope if isinstance(conn, HTTPConnection) else cast("Scope", conn)
    if scope["type"] == "websocket":
        return WebSocket(scope, tasks.inbox.receive, tasks.forward)
    return Request(scope, tasks.inbox.receive, tasks.forward)
