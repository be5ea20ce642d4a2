"""The exception handlers of an app."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketState

from quattro_core import TooManyWaitingError
from quattro_web._errors import DeadlineExceededError, ShuttingDownError
from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._exchange import Exchange

Handler = Callable[[Any, BaseException], Any]


def find_handler(scope: Scope, error: BaseException) -> Handler | None:
    """Find the app's exception handler, as Starlette does; the sub-app's own, in a sub-app."""
    handlers = scope.get("starlette.exception_handlers")
    by_class, by_status = ({}, {}) if handlers is None else handlers
    handler = by_status.get(error.status_code) if isinstance(error, HTTPException) else None
    for cls in type(error).__mro__:
        handler = handler or by_class.get(cls)
    # What is of our own making is answered in any app.
    return cast("Handler | None", handler or _OWN.get(type(error)))


async def call_handler(
    handler: Handler, conn: HTTPConnection, error: BaseException
) -> Response | None:
    """Call an exception handler, in a thread if it is no coroutine function."""
    function: Any = handler
    while isinstance(function, partial):
        function = function.func
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
    if is_async:
        return cast("Response | None", await handler(conn, error))
    return cast("Response | None", await run_in_threadpool(handler, conn, error))


def connection_of(conn: Connection, exchange: Exchange) -> HTTPConnection:
    """Return what a handler is called with: the object of whoever asked for the group.

    It is the one that has read the body, which a new Request could not read again.
    """
    if isinstance(conn, Request):
        return conn
    scope = conn.scope if isinstance(conn, HTTPConnection) else cast("Scope", conn)
    if scope["type"] != "websocket":
        return Request(scope, exchange.replay(), exchange.forward)
    websocket = conn
    if not isinstance(websocket, WebSocket):
        websocket = WebSocket(scope, exchange.receive, exchange.forward)
        if exchange.is_accepted:
            websocket.client_state = WebSocketState.CONNECTED
    if not exchange.complete:
        # It takes a close, or a denial, for sent that was held back and has never left.
        state = WebSocketState.CONNECTED if exchange.is_accepted else WebSocketState.CONNECTING
        websocket.application_state = state
    return websocket


async def _gateway_timeout(_conn: HTTPConnection, _error: BaseException) -> Response:
    return PlainTextResponse("Gateway Timeout", 504)


async def _service_unavailable(_conn: HTTPConnection, _error: BaseException) -> Response:
    return PlainTextResponse("Service Unavailable", 503, {"retry-after": "1"})


_OWN: dict[type[BaseException], Handler] = {
    DeadlineExceededError: _gateway_timeout,
    ShuttingDownError: _service_unavailable,
    TooManyWaitingError: _service_unavailable,
}
