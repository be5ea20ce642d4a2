"""The task groups as FastAPI dependencies."""

from __future__ import annotations

from typing import Annotated

from starlette.requests import HTTPConnection

from quattro_core import TaskGroup
from quattro_web import _app_group
from quattro_web._request import request_task_group

try:
    from fastapi import Depends
except ModuleNotFoundError as exc:
    msg = "quattro_web.fastapi needs FastAPI: pip install 'quattro-web[fastapi]'"
    raise ModuleNotFoundError(msg, name=exc.name) from exc

__all__ = ["AppTaskGroup", "RequestTaskGroup"]


# Coroutine functions, since FastAPI runs others in a thread; not with yield, which costs as much
# as a whole plain request, and closes at a time of FastAPI's.
async def _request_task_group(conn: HTTPConnection) -> TaskGroup:
    return request_task_group(conn)


async def _app_task_group(conn: HTTPConnection) -> _app_group.AppTaskGroup:
    return _app_group.app_task_group(conn)


RequestTaskGroup = Annotated[TaskGroup, Depends(_request_task_group)]
"""The task group of the current request or WebSocket connection, for a handler or a dependency.

::

    @app.get("/search")
    async def search(q: str, tg: RequestTaskGroup) -> list[str]: ...

See `quattro_web.request_task_group`.

.. versionadded:: 0.1
"""

AppTaskGroup = Annotated[_app_group.AppTaskGroup, Depends(_app_task_group)]
"""The app's task group, for work that outlives the response. See `quattro_web.app_task_group`.

.. versionadded:: 0.1
"""
