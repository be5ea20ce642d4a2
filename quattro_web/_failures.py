"""How the failure of a request is answered: as if its handler had raised it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from quattro_web._answering import answerable
from quattro_web._errors import DeadlineExceededError, ShuttingDownError
from quattro_web._exchange import Exchange
from quattro_web._handlers import Handler, call_handler, connection_of, find_handler
from quattro_web._reason import CancelReason
from quattro_web._request import RequestTasks
from quattro_web._scope import Connection

logger = logging.getLogger("quattro_web")


async def end(exchange: Exchange, tasks: RequestTasks, exc: BaseException | None) -> None:
    """End the group of a request after the app has returned or raised, and answer what failed."""
    if exchange.start is None:
        exc = answerable(exc)
    try:
        errors = await tasks.close(exc)
    except BaseException:
        exc = None  # it refers to this frame
        raise
    await exchange.unwatch()
    if tasks.is_releasing and (unsent := await tasks.settle()) is not None:
        errors.append(unsent)
    reason, by_handler, stopped = exchange.reason, exc, isinstance(exc, asyncio.CancelledError)
    exc = None
    if reason is CancelReason.DISCONNECT:
        # What the handler's own read was told is no news, and no failure.
        told = (ClientDisconnect, WebSocketDisconnect)
        errors = [error for error in errors if not isinstance(error, told)]
    elif tasks.is_websocket:
        # A child may be told so in the middle of its work; what the handler itself lets out leaves
        # the app, as it does without a group.
        errors = [e for e in errors if e is by_handler or not isinstance(e, WebSocketDisconnect)]
    own = None if exchange.complete or reason is None else _OWN_ERRORS.get(reason)
    if own is ShuttingDownError and not errors and _is_event_stream(exchange):
        tasks.drop()
        await exchange.forward({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if own is not None:
        errors.insert(0, own())
    try:
        if errors:
            tasks.drop()
            await _Answer(exchange, tasks.conn).to(errors)
        elif reason is CancelReason.DISCONNECT:
            tasks.drop()
            if exchange.start is None and not tasks.is_websocket:
                # Nobody reads it, but what is around us may wait for a response, or count it.
                with suppress(OSError):  # a server may say that the client has left (ASGI 2.4)
                    await Response(status_code=499)(_HTTP, exchange.receive, exchange.forward)
        elif stopped and not exchange.complete and not tasks.is_websocket:
            msg = "the request's task group was cancelled before the response was complete"
            raise RuntimeError(msg)
        elif tasks.is_holding:
            await tasks.flush()
    except asyncio.CancelledError as cancelled:
        if not exchange.was_cut_off(cancelled):  # in the BackgroundTasks of the answer
            raise
    finally:
        del errors, by_handler


_HTTP = {"type": "http"}

_OWN_ERRORS: dict[CancelReason, type[DeadlineExceededError | ShuttingDownError]] = {
    CancelReason.DEADLINE: DeadlineExceededError,
    CancelReason.SHUTDOWN: ShuttingDownError,
}


def _is_event_stream(exchange: Exchange) -> bool:
    """Whether an event stream has begun: it has no end that it could be cut before.

    A client comes back in any case, and drops an event that is not complete
    (https://html.spec.whatwg.org/multipage/server-sent-events.html).
    """
    start = exchange.start or {}
    kinds = [value for name, value in start.get("headers", ()) if name == b"content-type"]
    return any(kind.startswith(b"text/event-stream") for kind in kinds)


class _Answer:
    """What the client is told of a failure.

    Args:
        exchange: The request.
        conn: What the group was asked for with.
    """

    def __init__(self, exchange: Exchange, conn: Connection) -> None:
        self._exchange = exchange
        self._conn = connection_of(conn, exchange)

    async def to(self, errors: list[BaseException]) -> None:
        """Answer, or raise what nobody answers.

        Args:
            errors: What has failed, the first one first.
        """
        exchange, conn = self._exchange, self._conn
        error = errors[0] if len(errors) == 1 else _one_of(errors, conn.scope)
        try:
            handler = find_handler(conn.scope, error)
            if isinstance(conn, WebSocket) and exchange.is_accepted:
                await self._close(conn, error, handler)
            elif handler is None or exchange.start is not None or exchange.complete:
                raise error
            else:
                await self._respond(conn, error, handler)
        finally:
            del error, errors

    async def _respond(self, conn: HTTPConnection, error: BaseException, handler: Handler) -> None:
        try:
            raise error  # so that what the handler raises, in its turn, has it for its context
        except BaseException as exc:  # noqa: BLE001  # it is answered
            response = await call_handler(handler, conn, exc)
            if response is not None:
                await response(conn.scope, self._exchange.receive, self._exchange.forward)
        finally:
            del error  # its traceback refers to this frame

    async def _close(
        self, websocket: WebSocket, error: BaseException, handler: Handler | None
    ) -> None:
        """Close a WebSocket that was accepted: by its handler, else with 1011 (internal error).

        The shutdown closes it with 1012 (service restart), as uvicorn does.
        """
        exchange = self._exchange
        answered = isinstance(error, DeadlineExceededError | ShuttingDownError)
        code = 1012 if isinstance(error, ShuttingDownError) else 1011  # service restart
        if isinstance(error, HTTPException | WebSocketDisconnect) or exchange.complete:
            handler = None
        try:
            raise error  # as above: also for a close that fails
        except BaseException as exc:
            try:
                if handler is not None:
                    await call_handler(handler, websocket, exc)
                    answered = True
            finally:
                if not exchange.complete and not isinstance(exc, WebSocketDisconnect):
                    await exchange.forward({"type": "websocket.close", "code": code, "reason": ""})
            if not answered:
                raise
        finally:
            del error


def _one_of(errors: list[BaseException], scope: Scope) -> BaseException:
    """Choose what is answered when several have failed: a bug is never hidden behind a 404."""
    group = BaseExceptionGroup("several tasks of a request have failed", errors)
    if find_handler(scope, group) is None and all(find_handler(scope, error) for error in errors):
        for other in errors[1:]:
            logger.error("another failure of a request was answered first", exc_info=other)
        return errors[0]
    return group
