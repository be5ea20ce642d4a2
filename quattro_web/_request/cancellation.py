"""Asking for a request to be cancelled when its client leaves, or when it takes too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quattro_web._request.exchange import EndedRequest, Exchange, check_loop, request_of
from quattro_web._request.state import CancelReason
from quattro_web._request.watch import Watch
from quattro_web._util import cancel_scopes
from quattro_web._util.arguments import checked_seconds, checked_stream
from quattro_web._util.scope import REQUEST, Connection, scope_of


def cancel_on_disconnect(conn: Connection, *, on: bool = True) -> None:
    """Cancel the handler of this request, and its children, when its client leaves.

    For one route, called at the begin of its handler or in a dependency; for the whole app there is
    ``install(app, cancel_on_disconnect=True)``, which it can turn off for one. What is cancelled
    sees a `CancelledError` whose reason is `CancelReason.DISCONNECT`. A response that has not begun
    is then an empty one with status 499, for the middlewares around it. Nothing is cancelled when
    the response is complete. Requests that are answered within 50 ms are never watched.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.
        on: Whether to cancel it.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the request has ended, in a thread, or under another event loop than
            asyncio's.
        TypeError: If *conn* is none of these.

    .. versionadded:: 0.1
    """
    _watch(conn).disconnect(cancels=on)


def set_deadline(conn: Connection, seconds: float | None, *, stream: float | None = None) -> None:
    """Give this request some seconds from now: then it is cancelled and answered with a 504.

    For one route, called at the begin of its handler or in a dependency; for the whole app there
    are the options *deadline* and *stream_deadline* of `install`, which it replaces for this
    request, both of them. The handler and its children are cancelled, with `CancelReason.DEADLINE`
    for a reason, and the app's exception handlers answer a `DeadlineExceededError`. The log names
    what was still running.

    A stream keeps its deadline by beginning in time: when its first byte has left, only *stream*
    counts any more. A stream that outlives that is cut. To have one limit on everything, give the
    same number twice. A WebSocket is closed after *seconds*, whatever *stream* says.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.
        seconds: A positive number of seconds, until an ordinary response is complete, or a stream
            begins. None means that there is no deadline.
        stream: A number of seconds, also from now and at least as many, until a stream is complete.
            None means that a stream which has begun has no deadline.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the request has ended, in a thread, or under another event loop than
            asyncio's.
        TypeError: If *conn* is none of these, or *seconds* or *stream* not a number.
        ValueError: If *seconds* or *stream* is not positive and finite; if *stream* is less than
            *seconds*, or if there are no *seconds* with it.

    .. versionadded:: 0.1
    """
    checked_seconds("seconds", seconds)
    checked_stream("stream", stream, "seconds", seconds)
    _watch(conn).deadline(seconds, stream)


def time_left(conn: Connection) -> float | None:
    """Return the seconds until the deadline of this request, for the timeouts of what it calls.

    ::

        async with asyncio.timeout(time_left(request)):
            rates = await fetch_rates()

    In a thread as well, as in a ``def`` handler. Ask anew for each call: the time runs.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Returns:
        The seconds until the response has to begin; when it has begun, those until a stream has to
        be complete; 0.0 if that time has passed. None if there is no such deadline, and when the
        response is complete or its failure is being answered: nothing is cancelled any more then.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        TypeError: If *conn* is none of these.

    .. versionadded:: 0.1
    """
    request = request_of(conn)
    if isinstance(request, EndedRequest) or request.is_over:
        return None
    watch = request.watch
    return None if watch is None else watch.time_left


@contextmanager
def uninterrupted(conn: Connection) -> Iterator[None]:
    """Keep a disconnect or a deadline from cutting a section of a request.

    ::

        with uninterrupted(request):
            await charge(card)
            await store(receipt)

    What comes meanwhile cancels the request at the end of the section. Other cancellations, such
    as the failure of a child, are not held up.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the request has ended, in a thread, or under another event loop than
            asyncio's.
        TypeError: If *conn* is none of these.

    .. versionadded:: 0.1
    """
    watch = _watch(conn)
    watch.enter_uninterrupted()
    try:
        # The scope of whoever runs this in a task group of anyio's, as responses that stream and
        # BaseHTTPMiddleware do, and opens it when the client has left.
        with cancel_scopes.shield():
            yield
    finally:
        watch.exit_uninterrupted()


def cancel_reason(conn: Connection) -> CancelReason | None:
    """Return why the task group of this request has cancelled it; None if it has not.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        TypeError: If *conn* is none of these.

    .. versionadded:: 0.1
    """
    request: Exchange | EndedRequest | None = scope_of(conn).get(REQUEST)
    while isinstance(request, Exchange) and request.reason is None:
        request = request.outer  # a sub-app is cancelled with its app
    return None if request is None else request.reason


def _watch(conn: Connection) -> Watch:
    request = request_of(conn)
    if isinstance(request, EndedRequest):
        msg = "this request has ended: there is nothing left to cancel"
        raise RuntimeError(msg)  # noqa: TRY004  # of its time, not of its type
    check_loop(request.parent)
    if request.watch is None:
        request.watch = Watch(request, conn)
    return request.watch
