"""The task group: what it knows of its children, and what a failure of one does to the others."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio.events import _get_running_loop
from typing import Any, Literal

from quattro_core import _child
from quattro_core._child import CoroutineOrFunction
from quattro_core._slots import Slots

CALL_GRAPH = sys.version_info >= (3, 14)  # tasks know who waits for them


def is_base_error(error: BaseException) -> bool:
    """Tell whether the error ends the program, and so leaves the group as itself."""
    return isinstance(error, (KeyboardInterrupt, SystemExit))


class Children(asyncio.TaskGroup):
    """The children of a group, in the attributes and under the names of `asyncio.TaskGroup`."""

    # The standard library's attributes. TaskGroup sets them without calling its constructor.
    _entered: bool
    _exiting: bool
    _aborting: bool
    _loop: asyncio.AbstractEventLoop
    _parent_task: asyncio.Task[Any]
    _parent_cancel_requested: bool
    _tasks: set[asyncio.Task[Any]]
    _errors: list[BaseException]
    _base_error: BaseException | None
    _on_completed_fut: asyncio.Future[None] | None
    _cancel_on_enter: bool

    _cancel_msg: object = None
    # Before 3.13 the standard library leaves a coroutine that it refuses to the caller, who may
    # await it. A group that was opened by `enter` is no drop-in for one, and never does.
    _closes_refused = sys.version_info >= (3, 13)
    # What the error of a group that has ended says more: a subclass may know a way out.
    _way_out = ""
    # The loop while a plain child may be made at once, else False (no running loop is False).
    _spawns_in: asyncio.AbstractEventLoop | Literal[False]
    # Whether the loop makes tasks in asyncio's own way, so that they can be made without it.
    _is_direct: bool
    # `_on_task_done` while the group is open, else None: it takes long to bind it for each child.
    _on_done: Any
    # Background tasks, and whether the group has cancelled them: it does that once.
    _background: dict[asyncio.Task[Any], bool] | None
    # None without a limit.
    _slots: Slots | None

    def __repr__(self) -> str:
        state = "not entered"
        if self._entered:
            state = "finished" if self._exiting else "cancelling" if self._aborting else "entered"
        running = len(self._tasks) + len(self._background or ())
        counts = [f"tasks={running}"] if running else []
        counts += [f"errors={len(self._errors)}"] if self._errors else []
        return f"<TaskGroup {' '.join([*counts, state])}>"

    # What the children report

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        tasks = self._tasks
        tasks.discard(task)
        if not tasks:
            future = self._on_completed_fut
            if future is not None and not future.done():
                future.set_result(None)
        if CALL_GRAPH or task.cancelled() or task.exception() is not None:
            self._settle(task)

    def _on_background_task_done(self, task: asyncio.Task[Any]) -> None:
        assert self._background is not None
        del self._background[task]
        if not self._background and not self._tasks:
            self._wake()
        self._settle(task)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        if CALL_GRAPH:  # pragma: no cover (3.14)
            asyncio.future_discard_from_awaited_by(task, self._parent_task)  # type: ignore[attr-defined]  # of 3.14
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self._errors.append(error)
        if self._base_error is None and is_base_error(error):
            self._base_error = error
        parent = self._parent_task
        if parent.done():
            # Only a group that was opened with enter() can outlive the task of its body.
            message = f"{task!r} has failed after {parent!r}, the parent of its TaskGroup, was done"
            self._loop.call_exception_handler(
                {"message": message, "exception": error, "task": task}
            )
            self._abort()
        elif not self._aborting:
            self._abort()
            self._cancel_parent()

    # Steps

    def _cancel_parent(self, msg: object = None) -> None:
        """Cancel the task of the body, once."""
        if not self._parent_cancel_requested:
            self._parent_cancel_requested = True
            self._parent_task.cancel(msg)

    def _cancel_child(self, task: asyncio.Task[Any]) -> None:
        """Cancel a child; the group does that once."""
        task.cancel(self._cancel_msg)

    def _wake(self) -> None:
        future = self._on_completed_fut
        if future is not None and not future.done():
            future.set_result(None)

    def _dismiss(self) -> bool:
        """Cancel the background tasks, each once. Tells that the group has to wait for them."""
        assert self._background is not None
        for task, dismissed in self._background.items():
            if not dismissed:
                self._background[task] = True
                self._cancel_child(task)
        return True

    def _dismiss_one(self, task: asyncio.Task[Any]) -> None:
        """Cancel a background task, unless the group or somebody else has done so by this way."""
        if self._background is not None and self._background.get(task) is False:
            self._background[task] = True
            self._cancel_child(task)

    def _background_tasks(self) -> dict[asyncio.Task[Any], bool]:
        """Return the background tasks, and whether each is dismissed: the same object for ever."""
        if self._background is None:
            self._background = {}
        return self._background

    def _abort(self) -> None:
        """Cancel all children; take no more of them. The body is somebody else's to cancel."""
        if self._aborting:
            return
        self._aborting = True
        self._spawns_in = False
        for task in self._tasks:
            self._cancel_child(task)
        if self._background:
            self._dismiss()

    def _register(self, task: asyncio.Task[Any]) -> None:
        """Do for a new child what only some need: it is rare that any of it is to do."""
        if CALL_GRAPH:  # pragma: no cover (3.14)
            asyncio.future_add_to_awaited_by(task, self._parent_task)  # type: ignore[attr-defined]  # of 3.14
        if self._aborting:
            # An eager child has run already, and has cancelled the group that did not know it yet.
            task.cancel()
        if self._exiting and self._slots is None:
            # So has this one, and has finished it: the exit waits for what is left of the child.
            self._on_done = self._on_task_done

    def _register_background(self, task: asyncio.Task[Any]) -> None:
        if self._background is None:
            self._background = {}
        self._background[task] = False
        task.add_done_callback(self._on_background_task_done)
        if self._aborting:
            self._background[task] = True
        self._register(task)
        if not self._tasks:
            self._wake()  # the exit may be waiting for other background tasks: here is a new one

    def _report_all_but(self, error: BaseException) -> None:
        """Log the errors that give way to a KeyboardInterrupt or SystemExit (cpython 135736)."""
        message = f"a child of a TaskGroup failed, but its error gave way to {error!r}"
        for other in self._errors:
            if other is not error:
                self._loop.call_exception_handler({"message": message, "exception": other})

    # Refusals

    def _check_open(self, child: CoroutineOrFunction[Any], method: str) -> None:
        """Raise RuntimeError if the group takes no children now, or not from here."""
        _child.check(child)
        try:
            self._check_state()
            self._check_thread(method)
        except RuntimeError:
            if self._closes_refused or (self._entered and not self._is_here()):
                _child.close(child)
            raise

    def _check_state(self) -> None:
        if not self._entered:
            msg = f"TaskGroup {self!r} has not been entered"
        elif self._exiting:
            msg = f"TaskGroup {self!r} is finished{self._way_out}"
        elif self._aborting:
            msg = f"TaskGroup {self!r} is shutting down"
        else:
            return
        raise RuntimeError(msg)

    def _is_here(self) -> bool:
        return _get_running_loop() is self._loop

    def _check_thread(self, method: str) -> None:
        if not self._is_here():
            thread = threading.current_thread().name
            raise RuntimeError(_WRONG_THREAD.format(thread=thread, method=method))


_WRONG_THREAD = (
    "TaskGroup.{method} was called in thread {thread!r}, which is not that of its event loop. Call "
    "anyio.from_thread.run_sync(group.{method}, ...) instead in a thread that anyio started, such "
    "as that of a def endpoint of Starlette or FastAPI (or make the endpoint async def), and "
    "loop.call_soon_threadsafe(group.{method}, ...) in any other."
)
