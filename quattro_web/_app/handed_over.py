"""Work that handlers hand over to the app: it outlives the response that started it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import Any, TypeVar, cast

from quattro_core import LimitDeadlockError, SharedLimit, TaskGroup, TooManyWaitingError
from quattro_core._tasks import check_child
from quattro_web._app.uploads import Uploads, uploads_of
from quattro_web._errors import AppBusyError
from quattro_web._shutdown.state import CLEANUP, Shutdown
from quattro_web._util.asyncio import UNCANCELLABLE, current_task, is_cancelled, is_ctrl_c
from quattro_web._util.counts import KIND, REJECTIONS, TASK_DURATIONS, TASK_FAILURES, error_type
from quattro_web._util.exceptions import exc_info_of, forget_traceback, leaves
from quattro_web._util.facts import facts
from quattro_web._util.routes import route_path
from quattro_web._util.scope import Connection
from quattro_web._util.spans import Spans
from quattro_web._util.task_stacks import MOST_LINES, name_of, task_name, where

T = TypeVar("T")

CoroutineOrFunction = Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]

logger = logging.getLogger("quattro_web")


class AppGroup(TaskGroup):
    """The group of one run of an app: its pumps, and the work that handlers have handed over.

    Both see to their own failures. What comes out of work nevertheless stops nothing: that it has
    never begun, since all that runs waits for work like it, or that its failure can't be logged.

    Args:
        limit: A limit on the work.

    Attributes:
        work: The work that has not ended, each with where it comes from, and since when.
    """

    def __init__(self, limit: SharedLimit | None) -> None:
        super().__init__(shared_limit=limit)
        self.work: dict[asyncio.Task[Any], tuple[str, float]] = {}

    def _error_of(self, task: asyncio.Task[Any]) -> BaseException | None:
        error = super()._error_of(task)
        if not isinstance(error, Exception) or task not in self.work:
            return error
        if not isinstance(error, LimitDeadlockError):
            message = "the failure of handed-over work could not be logged"
            task.get_loop().call_exception_handler({"message": message, "exception": error})
        return None

    def _cancel_child(self, task: asyncio.Task[Any], *, late: bool = False) -> None:
        with UNCANCELLABLE:  # the others have to be cancelled all the same
            super()._cancel_child(task, late=late)


class HandedOverTasks:
    """The work that handlers have handed over to one run of an app: children of its group.

    Args:
        group: The group.
        shutdown: The shutdown of the run.
        limit: The limit of the group.
        errors: A list that gets the failures, for a test.
    """

    def __init__(
        self,
        group: AppGroup,
        shutdown: Shutdown,
        limit: SharedLimit | None = None,
        errors: list[BaseException] | None = None,
    ) -> None:
        self._group = group
        self._limit = limit
        self._shutdown = shutdown
        self._since = group.work
        self._announced: set[asyncio.Task[Any]] = set()  # whose end is in the log already
        self._closing: set[asyncio.Task[None]] = set()  # which close uploads
        self._routes: dict[asyncio.Task[Any], str | None] = {}
        self._owner: asyncio.Task[Any] | None = None
        self._errors = errors
        self.failures: int = 0
        self.spans: Spans = Spans()

    def start(self) -> None:
        """Take note of the task that the group lives in, which calls this."""
        self._owner = current_task()

    @property
    def count(self) -> int:
        """How many tasks run or wait for their turn."""
        return len(self.running)

    def create_task(
        self,
        coro: CoroutineOrFunction[T],
        *,
        scope: Connection,
        origin: str,
        name: str | None,
        context: Context | None,
    ) -> asyncio.Task[T | None]:
        """Run *coro* until it is done, at shutdown too; its failure is logged with its origin.

        The uploads of the request are open until then.

        Raises:
            AppBusyError: If as much is waiting as may.
        """
        check_child(coro)
        guarded = cast("CoroutineType[Any, Any, T | None]", self._guard(coro, origin))
        own_name = name_of(coro)
        if own_name is not None:
            guarded.__qualname__ = own_name  # asyncio logs it: as that of the user's function
        name = name or own_name
        try:
            task = self._group.create_task(guarded, name=name, context=context)
        except BaseException as exc:
            guarded.close()
            close_coroutine(coro)
            if isinstance(exc, TooManyWaitingError):
                REJECTIONS.add("app_concurrency_limit")
                raise self._busy(1, 0) from None
            raise
        self._note(task, origin)
        self._routes[task] = route_path(scope)
        # One that is cancelled before its first step has not come to awaiting the coroutine.
        task.add_done_callback(lambda _: close_coroutine(coro))
        uploads = uploads_of(scope, origin)
        if uploads is not None:
            uploads.join()
            # Not in the guard, which never runs if the task is cancelled before its first step.
            task.add_done_callback(partial(self._leave, uploads))
        return task

    def create_tasks(
        self,
        coros: Sequence[CoroutineOrFunction[T]],
        *,
        scope: Connection,
        origin: str,
        context: Context | None,
    ) -> tuple[asyncio.Task[T | None], ...]:
        """Run all of *coros*, or none, as `create_task` does.

        Raises:
            AppBusyError: If there is no room for all of them.
        """
        tasks: list[asyncio.Task[T | None]] = []
        try:
            for coro in coros:
                check_child(coro)
            self._check_room(len(coros))
            for coro in coros:
                tasks.append(  # noqa: PERF401  # an error needs those before it
                    self.create_task(coro, scope=scope, origin=origin, name=None, context=context)
                )
        except BaseException:
            # Of those that were created, if an eager one has taken the room of the next.
            for task in tasks:
                task.cancel()
            for coro in coros[len(tasks) :]:
                close_coroutine(coro)
            raise
        return tuple(tasks)

    def _check_room(self, wanted: int) -> None:
        limit = self._limit
        if limit is None or limit.max_waiting is None:
            return
        free = 0 if limit.waiting else limit.total - limit.running
        room = max(free + limit.max_waiting - limit.waiting, 0)
        if wanted > room:
            REJECTIONS.add("app_concurrency_limit")
            raise self._busy(wanted, room)

    def _busy(self, wanted: int, room: int) -> AppBusyError:
        limit = self._limit
        assert limit is not None
        return AppBusyError(
            f"{limit.running} handed-over tasks are running and {limit.waiting} are waiting, so "
            f"there is room for {room} more, and not for {wanted}: try again later, or raise "
            f"app_max_waiting, which is {limit.max_waiting}"
        )

    async def drain(self) -> list[str]:
        """Wait for all tasks as long as the shutdown allows, then cancel them.

        Returns the names of those that do not end, with where they hang.
        """
        grace = self._shutdown.grace
        while running := self.running:  # the work that is done may have handed over more
            if await self._shutdown.wait(running, until=grace.until_tasks_end - CLEANUP):
                break
        else:
            return []
        age = self._shutdown.age
        message = "the shutdown cancels handed-over work that is still running after %.1f s: %s"
        self._log_still_running(logging.WARNING, message, age)
        until = age + CLEANUP
        while running := self.running:
            self._announced.update(running)
            # The clean-up of one may hand over more: that has no other time.
            self._group._withdraw([task for task in running if task not in self._closing])  # noqa: SLF001
            if await self._shutdown.wait(running, until=until, is_grace=False):
                break
        if self.running:
            message = "the shutdown no longer waits for handed-over work that was cancelled: %s"
            self._log_still_running(logging.ERROR, message)
        return self.still_running()

    def _log_still_running(self, level: int, message: str, *arguments: float) -> None:
        """Log the name of each task that is not done: all, in entries that no collector cuts."""
        lines = self.still_running()
        for begin in range(0, len(lines), MOST_LINES):
            logger.log(level, message, *arguments, "; ".join(lines[begin : begin + MOST_LINES]))

    async def wait_closed(self) -> None:
        """Wait until the uploads of work that has ended are closed."""
        while self._closing:
            await asyncio.wait(self._closing)

    def still_running(self) -> list[str]:
        """Return the name of each task that is not done, with its origin and where it hangs."""
        now = monotonic()
        return [
            f"{task_name(task)}, handed over by {origin} {now - since:.1f} s ago ({where(task)})"
            for task, origin, since in self.work
        ]

    @property
    def work(self) -> list[tuple[asyncio.Task[Any], str, float]]:
        """The tasks that are not done, each with its origin, and when it was handed over."""
        found = tuple(self._since.items())  # at once, in any thread
        return [(task, origin, since) for task, (origin, since) in found if not task.done()]

    @property
    def running(self) -> list[asyncio.Task[Any]]:
        """The tasks that are not done."""
        # One that is done is still there until its callbacks are called.
        return [task for task in self._since if not task.done()]

    def _note(self, task: asyncio.Task[Any], origin: str) -> None:
        self._since[task] = (origin, monotonic())
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        origin, since = self._since.pop(task)
        TASK_DURATIONS.observe(monotonic() - since, {KIND: "handed_over"})
        if task.cancelled() and self._is_lost(task):  # which may not have had its first step
            logger.warning(
                "%s, handed over by %s, was cancelled unfinished, because the event loop ended",
                task_name(task),
                origin,
                extra=facts(task=task_name(task), origin=origin, route=self._routes.get(task)),
            )
        elif not task.cancelled() and isinstance(error := task.exception(), LimitDeadlockError):
            self._failed("%s, handed over by %s, failed", task, origin, error)
        self._routes.pop(task, None)
        self._announced.discard(task)
        self._closing.discard(task)

    def _leave(self, uploads: Uploads, _task: asyncio.Task[Any]) -> None:
        if uploads.leave():
            # Not a child of the group, which may be aborting: it has to run nevertheless.
            task = asyncio.get_running_loop().create_task(
                self._close(uploads), name="the closing of uploads"
            )
            self._closing.add(task)
            self._note(task, uploads.origin)

    async def _close(self, uploads: Uploads) -> None:
        try:
            await uploads.close()
        except Exception as exc:  # noqa: BLE001  # of a file, such as a full disk: it is reported
            task = current_task()
            self._failed("%s, handed over by %s, failed", task, uploads.origin, exc)

    async def _guard(self, coro: CoroutineOrFunction[T], origin: str) -> T | None:
        try:
            awaitable = coro if asyncio.iscoroutine(coro) else coro()
            if not inspect.isawaitable(awaitable):
                msg = f"{coro!r} was expected to return a coroutine, got {awaitable!r}"
                raise TypeError(msg)
            with self.spans.handed_over(current_task().get_name()):
                return await awaitable
        except asyncio.CancelledError as exc:
            if not is_cancelled():
                task = current_task()
                self._announced.add(task)
                self._failed(
                    "%s, handed over by %s, was cancelled by something it awaited",
                    task,
                    origin,
                    exc,
                )
            raise
        except BaseException as exc:
            self._failed("%s, handed over by %s, failed", current_task(), origin, exc)
            if is_ctrl_c(exc):
                raise
            return None

    def _is_lost(self, task: asyncio.Task[Any]) -> bool:
        """Whether neither the drain nor, it seems, the user has cancelled it.

        A server that waits no longer lets the event loop end, which cancels everything.
        """
        owner = self._owner
        is_ending = self._shutdown.has_begun or (owner is not None and bool(owner.cancelling()))
        return is_ending and task not in self._announced

    def _failed(
        self, message: str, task: asyncio.Task[Any], origin: str, exc: BaseException
    ) -> None:
        self.failures += 1
        TASK_FAILURES.add("handed_over", error_type(exc), self._routes.get(task))
        if self._errors is not None:
            self._errors.append(exc)
        name = task_name(task)
        fields = facts(task=name, origin=origin, route=self._routes.get(task))
        logger.error(message, name, origin, exc_info=exc_info_of(exc), extra=fields)
        if self._errors is None:
            for leaf in leaves(exc):  # a module may raise the same one again and again
                forget_traceback(leaf)


def close_coroutine(coro: object) -> None:
    """Close a coroutine that will not be awaited."""
    if asyncio.iscoroutine(coro):
        coro.close()
