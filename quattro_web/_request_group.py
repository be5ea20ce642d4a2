"""The request group, as handlers see it."""

from __future__ import annotations

from quattro_core import TaskGroup
from quattro_web._arguments import checked_limit
from quattro_web._ended import COMPLETE, EndedRequest, check_loop
from quattro_web._errors import NoTaskGroupError
from quattro_web._exchange import Exchange
from quattro_web._scope import REQUEST, Connection, not_a_connection


def request_task_group(conn: Connection) -> TaskGroup:
    """Return the task group of the current request or WebSocket connection.

    It is the same one wherever it is asked for in the course of the request. What is spawned in it
    ends before the response is complete: the response waits for its tasks, and its background
    tasks are cancelled then. An error of a child is answered as if the handler had raised it.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the response is complete, as it is in Starlette's BackgroundTasks; in a
            thread, such as that of a ``def`` endpoint; or under another event loop than asyncio's.
        TypeError: If *conn* is none of these, but an app.

    .. versionadded:: 0.1
    """
    request = request_of(conn)
    tasks = request.tasks
    if tasks is None:
        return request.open_group(conn)
    if tasks.exchange.complete:
        raise RuntimeError(COMPLETE)
    check_loop(tasks.exchange.parent)
    tasks.guard(conn)
    return tasks.group


def set_concurrency_limit(conn: Connection, limit: int | None) -> None:
    """Set how many children of this request may run at once.

    For one route, called in a dependency or at the begin of a handler, before anybody asks for the
    group; for the whole app there is ``install(app, concurrency_limit=...)``, which it replaces.

    Args:
        conn: The request, the WebSocket, or the ASGI scope.
        limit: At least 1. None means no limit.

    Raises:
        NoTaskGroupError: If TaskGroupMiddleware is not installed.
        RuntimeError: If the group of this request is there already, or has ended.
        TypeError: If *limit* is not an int, or *conn* none of these.
        ValueError: If *limit* is below 1.

    .. versionadded:: 0.1
    """
    checked_limit("limit", limit)
    request = request_of(conn)
    if request.group is not None or isinstance(request, EndedRequest):
        msg = "the group of this request is there already: set its limit before it is asked for"
        raise RuntimeError(msg)
    request.settings = request.settings.limited(limit)


def request_of(conn: Connection) -> Exchange | EndedRequest:
    """Return what is kept of a request in its scope."""
    try:
        # A Request is a mapping of its scope, but a slow one.
        request: Exchange | EndedRequest = getattr(conn, "scope", conn)[REQUEST]
    except KeyError:
        msg = (
            "no task group on this request: call quattro_web.install(app), "
            "or wrap the ASGI app in quattro_web.TaskGroupMiddleware"
        )
        raise NoTaskGroupError(msg) from None
    except TypeError:
        raise not_a_connection(conn) from None
    return request if request.inner is None else request.innermost
