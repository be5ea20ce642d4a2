"""Asking for a request to be cancelled when its client leaves, or when it takes too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quattro_web._arguments import checked_seconds
from quattro_web._ended import EndedRequest, check_loop
from quattro_web._exchange import Exchange
from quattro_web._reason import CancelReason
from quattro_web._request_group import request_of
from quattro_web._scope import REQUEST, Connection, scope_of
from quattro_web._watch import Watch


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


def set_deadline(conn: Connection, seconds: float | None) -> None:
    """Give this request some seconds from now: then it is cancelled and answered with a 504.

    For one route, called at the begin of its handler or in a dependency; for the whole app there is
    ``install(app, deadline=...)``, which it replaces for this one. The handler and its children are
    cancelled, with `CancelReason.DEADLINE` for a reason, and the app's exception handlers answer a
    `DeadlineExceededError`. A response that has begun is cut. The log names what was still running.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.
        seconds: A positive number of seconds. None means that there is no deadline.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the request has ended, in a thread, or under another event loop than
            asyncio's.
        TypeError: If *conn* is none of these, or *seconds* not a number.
        ValueError: If *seconds* is not positive and finite.

    .. versionadded:: 0.1
    """
    _watch(conn).deadline(checked_seconds("seconds", seconds))


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
