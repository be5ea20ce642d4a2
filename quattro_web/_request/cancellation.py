"""Requesting that a request is cancelled on a disconnect, or when it takes too long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quattro_web._request.exchange import (
    EndedRequest,
    Exchange,
    call_in_loop_of,
    check_loop,
    request_of,
)
from quattro_web._request.state import CancelReason
from quattro_web._request.watch import Watch
from quattro_web._util import cancel_scopes
from quattro_web._util.arguments import checked_bool, checked_seconds, checked_stream
from quattro_web._util.injection import CalledWith
from quattro_web._util.scope import REQUEST, Connection, scope_of


def cancel_on_disconnect(conn: CalledWith, *, on: bool = True) -> None:
    """Cancel this request's handler and its children when its client disconnects.

    Call it for one route, at the start of its handler or in a dependency; for the whole app, use
    ``install(app, cancel_on_disconnect=True)``, which this can turn off for a route. The cancelled
    tasks see a `CancelledError` whose reason is `CancelReason.DISCONNECT`. If no response has
    begun, the middlewares around the app see an empty one with status 499. Nothing is cancelled
    once the response is complete. Requests that are answered within 50 ms are not watched.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.
        on: Whether to cancel the request.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the request has ended; in a thread that the request does not wait for; or
            under an event loop other than asyncio's.
        TypeError: If *on* is not a bool, or *conn* is something else.

    .. versionadded:: 0.1
    """
    checked_bool("on", on)
    _watch_with("cancel_on_disconnect", conn, lambda watch: watch.disconnect(cancels=on))


def set_deadline(conn: CalledWith, seconds: float | None, *, stream: float | None = None) -> None:
    """Set a deadline for this request: after it, the request is cancelled and answered with a 504.

    Call it for one route, at the start of its handler or in a dependency; for the whole app,
    `install` has the options *deadline* and *stream_deadline*, both of which this replaces for this
    request; a shorter deadline that the client asks for by *deadline_header* still counts. The
    handler and its children are cancelled with `CancelReason.DEADLINE`, and the app's exception
    handlers answer a `DeadlineExceededError`. The log names the tasks that were still running.

    A stream meets its deadline by beginning in time: once its first byte is sent, only *stream*
    counts. A stream that takes longer than *stream* is cut. For one limit on every response, pass
    the same number twice. A WebSocket is closed after *seconds*, whatever *stream* says.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.
        seconds: The seconds from now until an ordinary response must be complete, or a stream must
            begin. None means no deadline.
        stream: The seconds from now until a stream must be complete, at least *seconds*. None means
            that a stream, once begun, has no deadline.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the request has ended; in a thread that the request does not wait for; or
            under an event loop other than asyncio's.
        TypeError: If *conn* is something else, or *seconds* or *stream* is not a number.
        ValueError: If *seconds* or *stream* is not positive and finite; if *stream* is less than
            *seconds*, or given without *seconds*.

    .. versionadded:: 0.1
    """
    checked_seconds("seconds", seconds)
    checked_stream("stream", stream, "seconds", seconds)
    _watch_with("set_deadline", conn, lambda watch: watch.deadline(seconds, stream))


def time_left(conn: CalledWith) -> float | None:
    """Return the seconds until this request's deadline, as a timeout for the calls that it makes.

    ::

        async with asyncio.timeout(time_left(request)):
            rates = await fetch_rates()

    Works in threads too, as in a ``def`` handler. Call it again for each timeout: the time runs.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Returns:
        The seconds until the response must begin or, once a stream has begun, until it must be
        complete; 0.0 if that time has passed. None if there is no such deadline; also once the
        response is complete, or while an error is being answered, since nothing is cancelled then.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        TypeError: If *conn* is something else.

    .. versionadded:: 0.1
    """
    request = request_of(conn)
    if isinstance(request, EndedRequest) or request.is_over:
        return None
    watch = request.watch
    return None if watch is None else watch.time_left


@contextmanager
def uninterrupted(conn: Connection) -> Iterator[None]:
    """Keep a disconnect or a deadline from interrupting a section of a request.

    ::

        with uninterrupted(request):
            await charge(card)
            await store(receipt)

    A disconnect or a deadline in the meantime cancels the request at the end of the section. Other
    cancellations, such as those by a failed child, are not delayed.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the request has ended; in a thread; or under an event loop other than
            asyncio's.
        TypeError: If *conn* is something else.

    .. versionadded:: 0.1
    """
    request = _open_request(conn)
    check_loop(request.parent, "uninterrupted", _NOT_CUT)
    watch = _watch_of(request, conn)
    watch.enter_uninterrupted()
    try:
        # The scope of whoever runs this in a task group of anyio's, as responses that stream and
        # BaseHTTPMiddleware do, and opens it when the client has left.
        with cancel_scopes.shield():
            yield
    finally:
        watch.exit_uninterrupted()


def cancel_reason(conn: CalledWith) -> CancelReason | None:
    """Return why this request was cancelled by its task group; None if it was not.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        TypeError: If *conn* is something else.

    .. versionadded:: 0.1
    """
    request: Exchange | EndedRequest | None = scope_of(conn).get(REQUEST)
    while isinstance(request, Exchange) and request.reason is None:
        request = request.outer  # a sub-app is cancelled with its app
    return None if request is None else request.reason


_NOT_CUT = "which nothing cuts: leave it out, or make the handler async def"


def _watch_with(name: str, conn: Connection, call: Callable[[Watch], None]) -> None:
    request = _open_request(conn)
    call_in_loop_of(request, name, lambda: call(_watch_of(request, conn)))


def _open_request(conn: Connection) -> Exchange:
    request = request_of(conn)
    if isinstance(request, EndedRequest):
        msg = "this request has ended: there is nothing left to cancel"
        raise RuntimeError(msg)  # noqa: TRY004  # of its time, not of its type
    return request


def _watch_of(request: Exchange, conn: Connection) -> Watch:
    return request.watch or request.open_watch(conn)
