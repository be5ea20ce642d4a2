"""The task group of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from quattro_core import TaskGroup
from quattro_web._where import needs_thread

# Seconds between two looks at whether a thread has ended.
THREAD_POLL = 0.02


class PatientGroup(TaskGroup):
    """A task group that cancels what waits for a thread when the thread has ended.

    A ``def`` handler, or a child that has called into the thread pool, would otherwise go on there
    with the dependencies that are closed then. anyio does not tell when a thread has ended.
    """

    # Whether the handler has raised: what was to cancel it would cut its dependencies' clean-up.
    is_left = False

    def _cancel_parent(self, msg: object = None) -> None:
        parent = self._parent_task
        if parent is None:
            return  # the group has ended meanwhile
        if needs_thread(parent):
            self._loop.call_later(THREAD_POLL, self._cancel_late, msg)
        else:
            super()._cancel_parent(msg)

    def _cancel_late(self, msg: object) -> None:
        if not self.is_left:
            self._cancel_parent(msg)

    def _cancel_child(self, task: asyncio.Task[Any]) -> None:
        if needs_thread(task):
            self._loop.call_later(THREAD_POLL, self._cancel_child, task)
        else:
            super()._cancel_child(task)
