"""How the failure of a request is answered: as if the handler had raised it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from quattro_web._errors import DeadlineExceededError, ShuttingDownError
from quattro_web._request.exchange import Exchange
from quattro_web._request.handlers import (
    Handler,
    call_handler,
    choose,
    drop_traceback,
    find_handler,
    log_unanswered,
    raise_anew,
    without_started,
)
from quattro_web._request.state import CancelReason
from quattro_web._request.tasks import RequestTasks
from quattro_web._util.exceptions import leaves
from quattro_web._util.scope import Connection


class Outcome(Enum):
    """What becomes of a request when its app has returned or raised, and its children have ended.

    The first line that fits:

    ======================================= ============================== =====================
    situation                               what the client gets           what the log gets
    ======================================= ============================== =====================
    the shutdown cuts a stream, and         a cut connection; of an event  the shutdown's line
    nothing else has failed                 stream its end: it comes back
    something has failed, nothing has left  what the app's exception       what Starlette logs;
    (the request's own deadline or          handler makes of it, else 500  the others of several
    shutdown count as failures: 504, 503)
    something has failed in a stream        a cut connection               the traceback
    something has failed in a WebSocket     the code of its handler, 1011, the traceback, if
                                            or 1012 at a shutdown          nobody answers it
    the client has left                     nothing; who stands around     nothing
                                            sees an empty 499
    the app has cancelled the group itself  500                            the traceback
    anything else                           what was held back             nothing
    ======================================= ============================== =====================
    """

    STREAM_ENDS = "a stream is ended by the shutdown"
    FAILED = "it has failed"
    CLIENT_LEFT = "its client has left"
    CANCELLED = "its group was cancelled by the app, before the response was complete"
    DONE = "nothing has failed"


async def end_request(exchange: Exchange, tasks: RequestTasks, exc: BaseException | None) -> None:
    """Leave the group of a request after the app has returned or raised, and answer what failed.

    Args:
        exchange: The request.
        tasks: Its group.
        exc: What the app has raised.

    Raises:
        BaseException: What nobody answers; a cancellation from outside.
    """
    told = without_started(exc)
    if not _has_begun(exchange) or (told is tasks.failure and _is_shutdown(told)):
        exc = told
    del told  # it refers to this frame
    if tasks.is_consequence(exc):
        exc = None
    gate = exchange.gate
    try:
        errors = await tasks.exit(exc)
    except BaseException:
        exc = None  # it refers to this frame
        raise
    try:
        await exchange.unwatch()
        # The start of a stream that was held for long enough is sent by a task of the gate's.
        unsent = await gate.settle()
    except asyncio.CancelledError:  # perhaps since long: the children have cleaned up meanwhile
        log_unanswered(errors, tasks.scope)
        del errors, exc
        raise
    try:
        if unsent is not None:
            errors.append(unsent)
        errors = tasks.failures(errors, exc)
        is_stream = _has_begun(exchange) and not tasks.is_websocket
        if is_stream and all(map(_is_shutdown, errors)):
            errors = []
        outcome = _outcome(exchange, tasks, errors, exc)
        if outcome is not Outcome.DONE:
            gate.drop()
        if outcome is Outcome.FAILED:
            await _Answer(exchange, tasks.conn).to(errors)
        elif outcome is Outcome.STREAM_ENDS:
            # Any other is incomplete: servers cut it as they do one that raises, with less to log.
            if _is_event_stream(exchange):
                end = {"type": "http.response.body", "body": b"", "more_body": False}
                await exchange.forward(end)
        elif outcome is Outcome.CLIENT_LEFT:
            await _tell_middlewares(exchange, tasks)
        elif outcome is Outcome.CANCELLED:
            msg = "the request's task group was cancelled before the response was complete"
            raise RuntimeError(msg)
        elif gate.is_holding:
            await gate.flush()
    except asyncio.CancelledError as cancelled:
        if not exchange.takes_cut_off(cancelled):  # in the BackgroundTasks of the answer
            raise
    finally:
        del errors, exc


def _is_shutdown(error: BaseException | None) -> bool:
    """Whether this is the error of a shutdown; the task group of a stream may have wrapped it."""
    return error is not None and all(isinstance(e, ShuttingDownError) for e in leaves(error))


async def answer_error(exchange: Exchange, scope: Scope, exc: BaseException) -> None:
    """Answer what a handler without a group has raised, if it is an exception group.

    Raises:
        BaseException: What nobody answers.
    """
    try:
        error = choose([exc], scope) if isinstance(exc, BaseExceptionGroup) else exc
        # What nobody answers leaves as it is (R10).
        is_answered = error is not exc and find_handler(scope, error) is not None
        if not is_answered or _has_begun(exchange):
            raise_anew(exc)
        exchange.gate.drop()
        failed: BaseException | None = None
        try:
            await _Answer(exchange, scope).to([error])
        except BaseException as raised:
            if exchange.tasks is None:
                raise
            failed = raised
        if exchange.tasks is not None:  # its exception handler has asked for the group
            await end_request(exchange, exchange.tasks, failed)
    finally:
        del error, exc
        failed = None


def _outcome(
    exchange: Exchange,
    tasks: RequestTasks,
    errors: list[BaseException],
    exc: BaseException | None,
) -> Outcome:
    if errors:
        return Outcome.FAILED
    if exchange.reason is CancelReason.SHUTDOWN and not exchange.is_over:
        return Outcome.STREAM_ENDS  # else it has failed
    if exchange.reason is CancelReason.DISCONNECT:
        return Outcome.CLIENT_LEFT
    is_cancelled = isinstance(exc, asyncio.CancelledError) or tasks.group.was_cancelled
    if is_cancelled and not exchange.is_over and not tasks.is_websocket:
        return Outcome.CANCELLED
    return Outcome.DONE


async def _tell_middlewares(exchange: Exchange, tasks: RequestTasks) -> None:
    """Answer a client that has left: nobody reads it, but others may wait for it, or count it."""
    if not _has_begun(exchange) and not tasks.is_websocket:
        with suppress(OSError):  # a server may say that the client has left (ASGI 2.4)
            await Response(status_code=499)(_HTTP, exchange.receive, exchange.forward)


def _has_begun(exchange: Exchange) -> bool:
    """Whether anything of the response has left: a start that is held back has not."""
    return exchange.start is not None


_HTTP = {"type": "http"}


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
        exchange.is_answering = True
        error = choose(errors, conn.scope)
        try:
            tasks = exchange.tasks
            was_offered = tasks is not None and error is tasks.offered
            handler = None if was_offered else find_handler(conn.scope, error)
            if isinstance(conn, WebSocket) and exchange.is_accepted:
                await self._close(conn, error, handler)
            elif handler is None or _has_begun(exchange) or exchange.is_over:
                raise_anew(error)
            else:
                await self._respond(conn, error, handler)
        finally:
            del error, errors

    async def _respond(self, conn: HTTPConnection, error: BaseException, handler: Handler) -> None:
        try:
            raise error  # so that what the handler raises, in its turn, has it for its context
        except BaseException as exc:  # noqa: BLE001  # it is answered
            exchange = self._exchange
            try:
                response = await call_handler(handler, conn, exc)
                if response is not None:
                    await response(conn.scope, exchange.receive, exchange.forward)
            except asyncio.CancelledError as cancelled:
                if exchange.is_over or not exchange.takes_cut_off(cancelled):
                    raise
                raise_anew(exc)  # nobody has answered it
            drop_traceback(exc)
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
        if isinstance(error, HTTPException | WebSocketDisconnect) or exchange.is_over:
            handler = None
        try:
            raise error  # as above: also for a close that fails
        except BaseException as exc:
            try:
                if handler is not None:
                    await call_handler(handler, websocket, exc)
                    answered = True
            except asyncio.CancelledError as cancelled:
                if not exchange.takes_cut_off(cancelled):
                    raise
            finally:
                is_open = not exchange.is_over and not exchange.client_has_left
                tasks = exchange.tasks
                has_left = tasks is not None and tasks.tells_of_leaving(exc)
                if is_open and not has_left:
                    await exchange.forward({"type": "websocket.close", "code": code, "reason": ""})
            if not answered:
                raise
            drop_traceback(exc)
        finally:
            del error


def connection_of(conn: Connection, exchange: Exchange) -> HTTPConnection:
    """Return what a handler is called with: the object of whoever asked for the group.

    It is the one that has read the body, which a new Request could not read again.
    """
    if isinstance(conn, Request):
        return conn
    scope = conn.scope if isinstance(conn, HTTPConnection) else cast("Scope", conn)
    if scope["type"] != "websocket":
        return Request(scope, exchange.reader.replay(), exchange.forward)
    websocket = conn
    if not isinstance(websocket, WebSocket):
        websocket = WebSocket(scope, exchange.receive, exchange.forward)
        if exchange.is_accepted:
            websocket.client_state = WebSocketState.CONNECTED
    if not exchange.is_over:
        # It takes a close, or a denial, for sent that was held back and has never left.
        state = WebSocketState.CONNECTED if exchange.is_accepted else WebSocketState.CONNECTING
        websocket.application_state = state
    return websocket
