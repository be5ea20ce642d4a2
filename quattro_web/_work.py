"""Work that was handed over to the app: it outlives the response that it was started for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from time import monotonic
from typing import Any, TypeVar

from quattro_core import TaskGroup, TooManyWaitingError
from quattro_web._cancellation import current_task, is_cancelled
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
        self._errors = errors
        self.failures = 0

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
        running = self.running
        for task in running:
            task.cancel()
        await self._shutdown.patience(running, until=age + CLEANUP, hurries=False)
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

    async def _guard(self, work: Work[T], origin: str) -> T | None:
        try:
            return await (work if asyncio.iscoroutine(work) else work())
        except asyncio.CancelledError as exc:
            if not is_cancelled():
                self._failed(
                    "%s, handed over by %s, was cancelled by something it awaited", origin, exc
                )
            raise
        except KeyboardInterrupt:  # pragma: no cover  # the event loop ends with it
            raise
        except BaseException as exc:  # noqa: BLE001  # it is logged
            self._failed("%s, handed over by %s, failed", origin, exc)
            return None

    def _failed(self, message: str, origin: str, exc: BaseException) -> None:
        self.failures += 1
        if self._errors is not None:
            self._errors.append(exc)
        logger.error(message, current_task().get_name(), origin, exc_info=exc)


def close(work: object) -> None:
    """Close a coroutine that will not be awaited."""
    if asyncio.iscoroutine(work):
        work.close()
