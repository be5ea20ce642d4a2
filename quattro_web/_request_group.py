"""The request group, as handlers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from quattro_web._errors import NoTaskGroupError
from quattro_web._scope import REQUEST, Connection

if TYPE_CHECKING:
    from quattro_core import TaskGroup
    from quattro_web._request import EndedRequest, RequestTasks


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

    .. versionadded:: 0.1
    """
    try:
        tasks = cast("RequestTasks | EndedRequest", conn[REQUEST])
    except KeyError:
        msg = (
            "no task group on this request: call quattro_web.install(app), "
            "or wrap the ASGI app in quattro_web.TaskGroupMiddleware"
        )
        raise NoTaskGroupError(msg) from None
    return tasks.group or tasks.open_group(conn)
