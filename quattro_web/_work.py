"""Work that was handed over to the app: it outlives the response that it was started for."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from time import monotonic
from typing import Any, TypeVar

from quattro_core import TaskGroup, TooManyWaitingError
from quattro_web._cancellation import current_task, is_cancelled, is_ctrl_c
from quattro_web._errors import AppBusyError
from quattro_web._grace import CLEANUP
from quattro_web._pumps import name_of
from quattro_web._shutdown import Shutdown
from quattro_web._where import where

T = TypeVar("T")

Work = Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]

logger = logging.getLogger("quattro_web")


class HandedOver:
    """What handlers have handed over in one run of an app: foreground children of its group.

    Args:
        group: The group.
        shutdown: The shutdown of the run.
        errors: Where failures are kept, for a test.
    """

    def __init__(
        self, group: TaskGroup, shutdown: Shutdown, errors: list[BaseException] | None = None
    ) -> None:
        self._group = group
        self._shutdown = shutdown
        self._since: dict[asyncio.Task[Any], tuple[str, float]] = {}
        self._announced: set[asyncio.Task[Any]] = set()  # whose cancellation is in the log
        self._owner: asyncio.Task[Any] | None = None
        self._errors = errors
        self.failures: int = 0

    def start(self) -> None:
        """Take note of the task that the group lives in, which calls this."""
        self._owner = current_task()

    @property
    def count(self) -> int:
        """How much of it runs or waits for its turn."""
        return len(self.running)

    def take(
        self, work: Work[T], *, origin: str, name: str | None, context: Context | None
    ) -> asyncio.Task[T | None]:
        """Run *work* until it is done, at shutdown too; its failure is logged with its origin.

        Raises:
            AppBusyError: If as much is waiting as may.
        """
        if not (asyncio.iscoroutine(work) or callable(work)):
            msg = f"a coroutine was expected, or a function that returns one, got {work!r}"
            raise TypeError(msg)
        guarded = self._guard(work, origin)
        name = name or name_of(work)
        try:
            task = self._group.create_task(guarded, name=name, context=context)
        except BaseException as exc:
            guarded.close()
            close(work)
            if isinstance(exc, TooManyWaitingError):
                raise AppBusyError(str(exc)) from None
            raise
        self._since[task] = (origin, monotonic())
        task.add_done_callback(self._done)
        # One that is cancelled before its first step has not come to awaiting the work.
        task.add_done_callback(lambda _: close(work))
        return task

    async def drain(self) -> list[str]:
        """Wait for all of it as long as the shutdown allows, then cancel it.

        Returns the names of what does not end, with where it hangs.
        """
        grace = self._shutdown.grace
        while running := self.running:  # the work that is done may have handed over more
            if await self._shutdown.patience(running, until=grace.until_tasks_end - CLEANUP):
                break
        else:
            return []
        age = self._shutdown.age
        logger.warning(
            "the shutdown cancels handed-over work that still runs after %.1f s: %s",
            age,
            "; ".join(self.left()),
        )
        until = age + CLEANUP
        while running := self.running:
            self._announced.update(running)
            for task in running:  # its clean-up may hand over more: that has no other time
                task.cancel()
            if await self._shutdown.patience(running, until=until, hurries=False):
                break
        if self.running:
            logger.error(
                "the shutdown waits no longer for handed-over work that was cancelled: %s",
                "; ".join(self.left()),
            )
        return self.left()

    def left(self) -> list[str]:
        """Return the name of what is not done, with its origin and where it hangs."""
        now = monotonic()
        return [
            f"{task.get_name()}, handed over by {origin} {now - since:.1f} s ago ({where(task)})"
            for task, (origin, since) in tuple(self._since.items())
            if not task.done()
        ]

    @property
    def running(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done."""
        # One that is done is still there until its callbacks are called.
        return [task for task in self._since if not task.done()]

    def _done(self, task: asyncio.Task[Any]) -> None:
        del self._since[task]
        self._announced.discard(task)

    async def _guard(self, work: Work[T], origin: str) -> T | None:
        try:
            awaitable = work if asyncio.iscoroutine(work) else work()
            if not inspect.isawaitable(awaitable):
                msg = f"{work!r} was expected to return a coroutine, got {awaitable!r}"
                raise TypeError(msg)
            return await awaitable
        except asyncio.CancelledError as exc:
            if not is_cancelled():
                self._failed(
                    "%s, handed over by %s, was cancelled by something it awaited", origin, exc
                )
            elif self._is_lost(current_task()):
                logger.warning(
                    "%s, handed over by %s, was cancelled before its end, as the event loop ends",
                    current_task().get_name(),
                    origin,
                )
            raise
        except BaseException as exc:
            self._failed("%s, handed over by %s, failed", origin, exc)
            if is_ctrl_c(exc):
                raise
            return None

    def _is_lost(self, task: asyncio.Task[Any]) -> bool:
        """Whether it was neither the drain that has cancelled it nor, it seems, its own user.

        A server that is out of patience lets the event loop end, which cancels everything.
        """
        owner = self._owner
        is_ending = self._shutdown.has_begun or (owner is not None and bool(owner.cancelling()))
        return is_ending and task not in self._announced

    def _failed(self, message: str, origin: str, exc: BaseException) -> None:
        self.failures += 1
        if self._errors is not None:
            self._errors.append(exc)
        logger.error(message, current_task().get_name(), origin, exc_info=exc)


def close(work: object) -> None:
    """Close a coroutine that will not be awaited."""
    if asyncio.iscoroutine(work):
        work.close()
