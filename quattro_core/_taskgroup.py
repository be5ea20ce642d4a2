"""The task group: how its children are made."""

from __future__ import annotations

import asyncio
from asyncio import tasks
from asyncio.events import _get_running_loop
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, TypeVar

from quattro_core import _child
from quattro_core._child import CoroutineOrFunction
from quattro_core._children import CALL_GRAPH
from quattro_core._fan_out import FanOut
from quattro_core._shared import SharedLimit, checked_limit
from quattro_core._slots import Slots
from quattro_core._waiting import WaitingTask, check_options

T = TypeVar("T")


class TaskGroup(FanOut):
    """An `asyncio.TaskGroup` with background tasks and a limit on concurrency.

    When the body of the `async with` ends, the group waits for its foreground children
    (`create_task`) while its background tasks (`create_background_task`) go on, so that a child may
    rely on its pump to its last line. When no foreground child is left, the background tasks are
    cancelled, and their clean-up is awaited. No task is alive after the group.

    An unhandled error in the body or in any child cancels all others, each of them once, and comes
    out in an `ExceptionGroup`.

    Args:
        concurrency_limit: How many foreground children may run at once; the others wait for their
            turn, first come, first served. None means no limit. Background tasks don't count.
        shared_limit: A limit that this group shares with others; None means there is none.

    Raises:
        TypeError: If *concurrency_limit* is not an int, or *shared_limit* is no `SharedLimit`.
        ValueError: If *concurrency_limit* is below 1.

    .. versionadded:: 0.1
    """

    def __init__(
        self, *, concurrency_limit: int | None = None, shared_limit: SharedLimit | None = None
    ) -> None:
        # Every attribute is set here, and super().__init__() is not called: each of the two makes
        # a group with one child measurably slower (a default on the class is slow to read).
        self._entered = self._exiting = self._aborting = False
        self._parent_cancel_requested = self._cancel_on_enter = self._spawns_in = False
        self._loop = self._parent_task = None  # type: ignore[assignment]  # until it is entered
        self._base_error = self._on_completed_fut = self._background = None
        self._tasks = set()
        self._errors = []
        if concurrency_limit is None and shared_limit is None:
            self._slots = None
        else:
            self._slots = _slots_of(concurrency_limit, shared_limit)

    def create_task(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task that the group waits for.

        Args:
            coro: A coroutine, or a function of no arguments that returns one. The function is
                called by the task when it starts. If it raises, that is a failure of the child.
            name: The name of the task.
            context: The context that the task runs in; None means a copy of the current one.
            **kwargs: Whatever else `asyncio.loop.create_task` of this Python takes, such as
                `eager_start` of 3.14.

        Returns:
            The task. In a group with a `concurrency_limit` it may be waiting for its turn;
            cancelling it then means that it never starts.

        Raises:
            RuntimeError: If the group is not open: not entered, finished, or shutting down after
                an error. If the call comes from another thread than the event loop's, or if too
                many wait for the `shared_limit` (`TooManyWaitingError`): the coroutine is closed.
            TypeError: If *coro* is neither, or a keyword argument is unknown.

        .. versionadded:: 0.1
        """
        loop = self._spawns_in
        # One comparison stands for "entered, not finished, not aborting, no limit, right thread".
        if _get_running_loop() is not loop or coro.__class__ is not CoroutineType:
            return self._create_with_care(coro, name=name, context=context, **kwargs)
        task: asyncio.Task[T]
        if context is None and not kwargs:
            if not self._is_direct or loop.get_task_factory() is not None:
                task = loop.create_task(coro, name=name)
            elif name is None:
                task = tasks.Task(coro, loop=loop)
            else:
                task = tasks.Task(coro, loop=loop, name=name)
        else:
            task = self._make(coro, name=name, context=context, **kwargs)
        self._tasks.add(task)
        if self._spawns_in is not loop or CALL_GRAPH:
            self._register(task)
        task.add_done_callback(self._on_done)
        return task

    def create_background_task(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task that helps the others, such as a pump between queues.

        The group does not wait for it to finish by itself: it is cancelled when no foreground
        child is left, and its clean-up is awaited. Its unhandled error aborts the group, like any
        other. It does not count against the `concurrency_limit`.

        Takes, returns and raises what `create_task` does.

        .. versionadded:: 0.1
        """
        self._check_open(coro, "create_background_task")
        task = self._make(coro, name=name, context=context, **kwargs)
        self._register_background(task)
        return task

    def _create_with_care(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None,
        context: Context | None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        """Create a task in a group with a limit, or of a function, or raise what is wrong."""
        self._check_open(coro, "create_task")
        slots = self._slots
        if slots is None:
            task = self._make(coro, name=name, context=context, **kwargs)
            task.add_done_callback(self._on_task_done)
            self._tasks.add(task)
            self._register(task)
            return task
        if slots.take():
            # Taken before the task is made: an eager one may come back here at once.
            try:
                task = self._make(coro, name=name, context=context, **kwargs)
            except BaseException:
                slots.give_back()
                raise
            self._join(task)
            return task
        try:
            check_options(kwargs)
            slots.check_room()
        except BaseException:
            _child.close(coro)
            raise
        if name is not None:
            kwargs["name"] = name
        context = copy_context() if context is None else context
        waiting = WaitingTask(coro, loop=self._loop, context=context, options=kwargs or None)
        if slots.wait(waiting):
            self._join(waiting)
        return waiting

    def _make(
        self,
        coro: CoroutineOrFunction[T],
        *,
        name: str | None,
        context: Context | None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        coro = _child.coroutine_of(coro)
        loop = self._loop
        try:
            if self._is_direct and not kwargs and loop.get_task_factory() is None:
                return tasks.Task(coro, loop=loop, name=name, context=context)
            return loop.create_task(coro, name=name, context=context, **kwargs)
        except BaseException:
            coro.close()
            raise

    def _join(self, task: asyncio.Task[Any]) -> None:
        """Take in a child that has a slot of the group."""
        task.add_done_callback(self._on_limited_task_done)
        self._tasks.add(task)
        self._register(task)

    def _on_limited_task_done(self, task: asyncio.Task[Any]) -> None:
        assert self._slots is not None
        has_failed = not task.cancelled() and task.exception() is not None
        if has_failed:
            # An error aborts the group before its slot is handed on: nothing starts after it (C6).
            self._on_task_done(task)
        if (successor := self._slots.hand_on(task)) is not None:
            self._join(successor)
        if not has_failed:
            self._on_task_done(task)

    def _abort(self) -> None:
        if self._slots is not None and not self._aborting:
            self._slots.cancel(self._cancel_msg)
        super()._abort()


def _slots_of(limit: int | None, shared: SharedLimit | None) -> Slots:
    if shared is not None and not isinstance(shared, SharedLimit):
        msg = f"shared_limit must be a SharedLimit or None, got {shared!r}"
        raise TypeError(msg)
    return Slots(None if limit is None else checked_limit("concurrency_limit", limit), shared)
