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

    _way_out = (
        ": what a request starts ends before its response is complete; "
        "hand work that outlives it to quattro_web.app_task_group(conn)"
    )
    _is_left = False
    _left: asyncio.Future[None] | None = None
    _ending: asyncio.Task[bool] | None = None

    def leave(self) -> None:
        """Know that the handler has ended: what was to cancel it later would cut clean-up."""
        self._is_left = True
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    async def outlasts(self) -> bool:
        """Wait for the end of the group in another task than the handler's; tells if it has come.

        A child can't wait for its own end, nor can a task for which a child waits. When the handler
        has ended, every other task is one of those.
        """
        if self._loop.get_task_factory() is not None:
            await asyncio.sleep(0)  # the group knows an eager child when its first step has ended
        if not self.tasks:
            return True
        if self._is_left or asyncio.current_task() in self.tasks:
            return False
        self._left = self._left or self._loop.create_future()
        self._ending = self._loop.create_task(self.finish(), name="quattro_web end")
        try:
            await asyncio.wait((self._ending, self._left), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._ending.cancel()
            raise
        return self._ending.done()

    async def settle(self) -> None:
        """Leave nothing behind of whoever has waited for the end."""
        if self._ending is not None:
            await asyncio.wait((self._ending,))

    def _cancel_parent(self, msg: object = None) -> None:
        if needs_thread(self._parent_task):
            self._loop.call_later(THREAD_POLL, self._cancel_late, msg)
        else:
            super()._cancel_parent(msg)

    def _cancel_late(self, msg: object) -> None:
        if not self._is_left:
            self._cancel_parent(msg)

    def _cancel_child(self, task: asyncio.Task[Any]) -> None:
        if needs_thread(task):
            self._loop.call_later(THREAD_POLL, self._cancel_child, task)
        else:
            super()._cancel_child(task)
