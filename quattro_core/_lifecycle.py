"""The task group: how it opens, and how it ends."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError, current_task, get_running_loop
from types import TracebackType
from typing import Any, Self

from quattro_core._cancelling import cancel_again, undelivered
from quattro_core._children import Children, is_base_error
from quattro_core._direct import ASYNCIOS_CREATE_TASK


class Lifecycle(Children):
    """How a group begins and ends.

    The bookkeeping is ours on every Python, since the standard library's differs: 3.11 and 3.12
    leak a cancel count when a child fails during the exit, and lose an outer cancellation that
    meets a child's error; eager children abort the group from inside of `create_task`
    (https://github.com/python/cpython/issues/128550); `cancel` came with 3.15. It also is what
    keeps a group without new features as fast as the standard library's: what a group may never
    need is an attribute of the class until it does.
    """

    def enter(self, parent_task: asyncio.Task[Any] | None = None) -> Self:
        """Open the group, as `async with` does, for code that has no such block of its own.

        Whoever calls it sees to it that `__aexit__` is awaited, in *parent_task*.

        Args:
            parent_task: The task in which the body of the group runs: it is cancelled when a child
                fails. None means the current task.

        Raises:
            RuntimeError: If the group was entered before, if there is no parent task, or if the
                parent task runs in another event loop.

        .. versionadded:: 0.1
        """
        if self._entered:
            msg = f"TaskGroup {self!r} has already been entered"
            raise RuntimeError(msg)
        self._loop = loop = get_running_loop()
        if parent_task is None:
            parent_task = current_task(loop)
            if parent_task is None:
                msg = f"TaskGroup {self!r} cannot determine the parent task"
                raise RuntimeError(msg)
        else:
            if parent_task.get_loop() is not loop:
                msg = f"{parent_task!r}, the parent task, runs in another event loop"
                raise RuntimeError(msg)
            self._closes_refused = True
        self._parent_task = parent_task
        self._entered = True
        self._is_direct = getattr(loop.create_task, "__func__", None) is ASYNCIOS_CREATE_TASK
        if self._slots is None:
            self._spawns_in = loop
            self._on_done = self._on_task_done
        if self._cancel_on_enter:
            self.cancel(self._cancel_msg)
        return self

    async def __aenter__(self) -> Self:
        return self.enter()

    @property
    def exceptions(self) -> tuple[BaseException, ...]:
        """The unhandled errors of children so far, the first one first; empty after the exit.

        .. versionadded:: 0.1
        """
        return tuple(self._errors or ())

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """The children that run now, the foreground ones first, else in no particular order.

        Those that wait for their turn, in a group with a `concurrency_limit`, are not among them.

        .. versionadded:: 0.1
        """
        return (*self._tasks, *(self._background or ()))

    def cancel(self, msg: object = None) -> None:
        """Stop the group: cancel its body and its children.

        The `async with` then ends without an error, unless something else has failed. Cancelling a
        group before it is entered cancels it on entry; cancelling it twice, or after its end, does
        nothing. As `asyncio.TaskGroup.cancel` of Python 3.15.

        Args:
            msg: What the `CancelledError` of the body and of the children carries, as with
                `asyncio.Task.cancel`.

        Raises:
            RuntimeError: If the call comes from another thread than the event loop's.

        .. versionadded:: 0.1
        """
        if not self._entered:
            self._cancel_on_enter = True
            self._cancel_msg = msg
        elif self._parent_task is not None:
            self._check_thread("cancel")
            if not self._aborting:
                self._cancel_msg = msg
            self._abort()
            self._cancel_parent(msg)

    async def finish(self, *, immediate: bool = False) -> bool:
        """Finish the group from outside of its `async with`: nothing of it is alive afterwards.

        Waits for the foreground children, cancels the background tasks and waits for them, as the
        exit does; from then on the group takes no children. Errors of children are not raised
        here: `__aexit__` raises them, and the first one cancels the parent task as ever, unless
        the children are being cancelled already. If the parent is cancelled while it waits, which
        includes that a child fails, the children are cancelled and awaited first. If another task
        is, the children are cancelled, and it does not wait for them.

        Args:
            immediate: Cancel the children instead of waiting for them; not the body.

        Returns:
            Whether any child has failed; `exceptions` tells how.

        Raises:
            RuntimeError: If a child of the group calls it: it would wait for itself. If the group
                was not entered.

        .. versionadded:: 0.1
        """
        if not self._entered:
            msg = f"TaskGroup {self!r} has not been entered"
            raise RuntimeError(msg)
        task, parent = current_task(), self._parent_task
        cancelled: CancelledError | None = None
        if task is not parent and self._loop.get_task_factory() is not None:
            try:
                await asyncio.sleep(0)  # an eager child is known when its first step has ended
            except CancelledError as exc:
                if task in self.tasks:
                    raise
                self._abort()
                if not immediate:
                    raise
                cancelled = exc
        if task is not parent and (task in self._tasks or task in (self._background or ())):
            msg = f"{task!r} can't wait for the end of the TaskGroup that it is a child of"
            raise RuntimeError(msg)
        if immediate:
            self._abort()
        while self._tasks or (self._background and self._dismiss()):
            future = self._on_completed_fut
            if future is None or future.done():
                future = self._on_completed_fut = self._loop.create_future()
            try:
                if task is parent:
                    await future
                else:
                    # Not the future itself: a cancelled waiter would cancel it for the parent.
                    await asyncio.wait((future,))
            except CancelledError as exc:
                self._abort()
                if task is not parent and not immediate:
                    # It may be a task of a child's, for which the child waits.
                    raise
                cancelled = exc
        self._exiting = True
        self._spawns_in = False
        self._on_done = None
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled
        return bool(self._errors)

    async def __aexit__(  # type: ignore[override]  # typeshed's returns None
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        del tb
        parent, errors = self._parent_task, self._errors
        try:
            # The cancellation to pass on in the end, and the last one that was seen on the way.
            outer = last = None
            if exc is not None:
                self._abort()
                if isinstance(exc, CancelledError):
                    outer = last = exc
                elif self._base_error is None and is_base_error(exc):
                    self._base_error = exc
            while self._tasks or (self._background and self._dismiss()):
                future = self._on_completed_fut
                if future is None or future.done():
                    future = self._on_completed_fut = self._loop.create_future()
                try:
                    await future
                except CancelledError as cancelled:
                    last = cancelled
                    if not self._aborting:
                        outer = cancelled
                        self._abort()
            self._exiting = True
            self._spawns_in = False
            if self._base_error is not None:  # KeyboardInterrupt or SystemExit
                self._report_all_but(self._base_error)
                raise self._base_error
            if self._parent_cancel_requested:
                last = await undelivered(parent) or last
                if parent.uncancel() == 0:
                    outer = None  # it was ours
                elif outer is None:
                    outer = last
            if exc is not None and not isinstance(exc, CancelledError):
                errors.append(exc)
            if not errors:
                if outer is not None:
                    raise outer
                return True
            if parent.cancelling():
                # Errors go first, but the outer cancellation is not lost: the next await raises it.
                if sys.version_info >= (3, 13):  # pragma: no cover (of the newest, if combined)
                    cancel_again(parent)
                else:
                    # Before 3.13, uncancel() by a timeout around us would not take it back.
                    self._loop.call_soon(cancel_again, parent)
            if len(errors) == 1 and isinstance(exc, GeneratorExit):
                raise exc  # an async generator that is closed must see it as it is
            message = "unhandled errors in a TaskGroup"
            raise BaseExceptionGroup(message, errors) from None
        finally:
            # Exceptions are heavy, and a frame that keeps one makes a reference cycle of it. Who
            # asks for one of these after the end has no use for their types.
            self._parent_task = self._errors = self._base_error = None  # type: ignore[assignment]
            self._on_done = None  # it refers to the group
            del exc, outer, last, errors, parent
