"""Where a request has no group to give: after its end, and outside of its event loop."""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from typing import TYPE_CHECKING, Any

from quattro_core import TaskGroup
from quattro_web._scope import Connection

if TYPE_CHECKING:
    from quattro_web._app_run import AppRun
    from quattro_web._settings import Settings

COMPLETE = (
    "the response of this request is complete, and its task group has ended with it: "
    "hand work that outlives the response to quattro_web.app_task_group(conn)"
)


def check_loop(parent: asyncio.Task[Any] | None) -> None:
    """Raise RuntimeError outside of the event loop that serves the request."""
    try:
        if parent is None or parent.get_loop() is get_running_loop():
            return
    except RuntimeError:  # one of the two has none
        pass
    assert parent is not None
    try:
        parent.get_loop()
    except RuntimeError:
        msg = (
            "the server runs requests in something that looks like a task and can't be cancelled, "
            "as `granian --task-impl rust` does: run it with asyncio's tasks"
        )
        raise RuntimeError(msg) from None
    msg = (
        "the task group of a request was asked for in a thread: make the endpoint or "
        "dependency async def, or use anyio.from_thread.run_sync"
    )
    raise RuntimeError(msg)


class EndedRequest:
    """What stays in the scope of a request that has ended.

    Not the `Exchange`: it refers to the server's `send`, which commonly refers to the scope, so
    that each request would leave a cycle to the garbage collector.
    """

    tasks = group = reason = inner = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def open_group(self, _conn: Connection) -> TaskGroup:
        """Refuse."""
        raise RuntimeError(COMPLETE)

    def app_run(self) -> AppRun | None:
        """Return what runs as long as the app does."""
        return self._settings.app_run()
