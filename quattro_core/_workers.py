"""Worker threads and processes: functions that run there as children, and how threads spawn."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import inspect
import pickle
import sys
import threading
from asyncio import CancelledError
from asyncio.events import _get_running_loop
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

# The event loop of the group that has started the worker thread.
_worker = threading.local()


class TaskFuture(concurrent.futures.Future[T]):
    """The future of a child, returned by `TaskGroup.create_task` in a worker thread.

    ::

        def endpoint(tg: RequestTaskGroup) -> str:  # FastAPI calls it in a thread
            user, cart = tg.create_task(get_user()), tg.create_task(get_cart())
            return f"{user.result()} has {cart.result()}"

    It is a `concurrent.futures.Future`, so ``wait`` and ``as_completed`` of that module accept it.
    To type checkers, ``create_task`` returns an `asyncio.Task`, which has the same methods. If you
    need a timeout, cast it: ``cast("TaskFuture[str]", tg.create_task(...))``.

    .. versionadded:: 0.1
    """

    def __init__(self, task: asyncio.Task[T]) -> None:
        super().__init__()
        self._task = task
        self._task_loop = task.get_loop()
        task.add_done_callback(self._end)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the child to end, and return its result.

        Args:
            timeout: How many seconds to wait. None means no limit.

        Raises:
            asyncio.CancelledError: If the child was cancelled, for example because its group
                failed. Don't catch it: it ends the handler as a cancellation would.
            BaseException: The error of the child.
            RuntimeError: If called in the event loop's thread, which would wait for itself.
            TimeoutError: If the child has not ended in time. The child keeps running.

        .. versionadded:: 0.1
        """
        try:
            return self._wait(super().result, timeout)
        finally:
            del self  # an error refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the child to end, and return its error, or None.

        Takes the same argument as `result`, and raises the same errors, except for the child's own.

        .. versionadded:: 0.1
        """
        return self._wait(super().exception, timeout)

    def cancel(self) -> bool:
        """Request the child's cancellation; return False if the child was already done.

        The child cleans up first; the future is done when the child is.

        .. versionadded:: 0.1
        """
        if self.done():
            return False
        try:
            self._task_loop.call_soon_threadsafe(self._task.cancel)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def running(self) -> bool:
        """Return whether the child is still running.

        .. versionadded:: 0.1
        """
        return not self.done()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call *fn* with this future when the child has ended, in the event loop: *fn* must not
        block.

        If the child has already ended, *fn* is called at once, in this thread.

        .. versionadded:: 0.1
        """
        super().add_done_callback(fn)

    def _wait(self, wait: Callable[[float | None], R], timeout: float | None) -> R:
        if not self.done() and _get_running_loop() is self._task_loop:
            msg = f"{self!r} is for threads: in the event loop, create the task there, and await it"
            raise RuntimeError(msg)
        try:
            return wait(timeout)
        except concurrent.futures.CancelledError:
            raise CancelledError from None
        finally:
            del self, wait

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self.set_exception(error)
            del error
        else:
            self.set_result(task.result())


class NotAWorkerError(Exception):
    """This thread is none that a task of the event loop waits for."""


def call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], T]) -> T:
    """Call a function in the event loop, from a worker thread that a task of this loop waits for.

    It sees the context variables of the thread.

    Raises:
        BaseException: What *call* raises.
        NotAWorkerError: If this is no such thread.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def step() -> None:
        if _get_running_loop() is loop:
            try:
                results.append(call())
            except BaseException as exc:  # noqa: BLE001  # it is raised in the thread
                errors.append(exc)

    if not _call_in_loop(loop, step):
        raise NotAWorkerError
    for result in results:
        return result
    raise errors.pop() if errors else NotAWorkerError


def _call_in_loop(loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> bool:
    """Call *step*, which raises nothing, in the loop of this worker thread; tell if it is one."""
    if _get_running_loop() is not None:
        return False  # this thread has a loop of its own, and must not wait for another
    if getattr(_worker, "loop", None) is loop:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        loop.call_soon_threadsafe(lambda: done.set_result(step()))  # type: ignore[func-returns-value]
        done.result()
        return True
    if "anyio.to_thread" not in sys.modules:
        return False  # as below, in `_to_process`: only what is there anyway
    from_thread = importlib.import_module("anyio.from_thread")
    try:
        from_thread.run_sync(step)
    except RuntimeError:  # anyio has not started it
        return False
    return True


def elsewhere(method: str, way_out: str) -> str:
    """Return what the error of a method says that was called in the wrong thread."""
    name = threading.current_thread().name
    where = f"was called in thread {name!r}, which is not that of its event loop"
    return f"TaskGroup.{method} {where}: {way_out}"


EACH = (
    "make the endpoint or dependency async def, or call create_task(...) of the group for each "
    "child, and result() of what that returns"
)
NO_WORKER = (
    "a thread may call it that a task of that loop waits for, such as that of a def endpoint, of "
    "group.run_in_thread or of anyio.to_thread.run_sync; in any other, call "
    "loop.call_soon_threadsafe(group.{method}, ...)"
)


async def in_thread(function: Callable[..., T], args: Any, kwargs: Any) -> T:
    """Call a function in a thread of the event loop's pool; wait for it, cancelled or not."""
    loop = asyncio.get_running_loop()
    # Who takes it may go on: the thread that is to call the function, or who is cancelled before.
    claim = deque([None])

    def work() -> T | None:
        try:
            claim.pop()
        except IndexError:
            return None
        _worker.loop = loop
        try:
            return function(*args, **kwargs)
        except StopIteration as exc:  # no future can have it
            msg = f"{function!r} raised StopIteration"
            raise RuntimeError(msg) from exc
        finally:
            del _worker.loop

    # Under the name that `asyncio.to_thread` has for it, since who looks at it knows that.
    func_call = partial(copy_context().run, work)
    call = loop.run_in_executor(None, func_call)
    cancelled: CancelledError | None = None
    try:
        while True:
            # At least once: an eager task that has failed before somebody can await it would be a
            # failure, where the error is to be a result. On 3.14 a quick call is done at once.
            try:
                await asyncio.wait((call,))
            except CancelledError as exc:
                cancelled = cancelled or exc
                if claim:
                    try:
                        claim.pop()
                    except IndexError:
                        continue  # it has begun just now
                    call.cancel()
                    raise
            if call.done():
                break
        result = call.result()  # an error is not lost in a cancellation
        if cancelled is not None:
            raise cancelled
        return cast("T", result)
    finally:
        del cancelled, call  # they refer to this frame


# The functions that wait for a thread of the event loop's pool, which is given their `func_call`.
IN_THREAD = frozenset({asyncio.to_thread.__code__, in_thread.__code__})


async def in_process(function: Callable[..., T], args: Any, kwargs: Any) -> T:
    """Call a function in a worker process of anyio's, which is killed if this is cancelled."""
    to_process = _to_process()
    work = partial(function, *args, **kwargs)
    try:
        return cast("T", await to_process.run_sync(work, cancellable=True))
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        if _can_be_sent(work):
            raise  # the function has raised it
        msg = (
            f"run_in_process can't send {function!r} and its arguments to another process: {exc}; "
            "give it a function at the top level of a module, not a lambda or a local function, "
            "and arguments that can be pickled"
        )
        raise TypeError(msg) from exc
    except to_process.BrokenWorkerProcess as exc:
        path = getattr(sys.modules.get("__main__"), "__file__", None)
        # What the program has raised may be an error like this one, which anyio raises as itself.
        cause = exc.__cause__ or exc
        # anyio has words for a process that has not begun to work. One that is slow to come, or
        # that says something else, has not got to the program.
        is_slow = isinstance(cause, TimeoutError) or "unexpected response" in str(exc)
        if not exc.args or path is None or is_slow:
            raise
        msg = (
            f"the process of run_in_process imports your main program, {path}, and that has failed "
            f"there with {type(cause).__name__}: put whatever the program runs below "
            'if __name__ == "__main__":'
        )
        raise to_process.BrokenWorkerProcess(msg) from cause


IN_PROCESS = in_process.__code__


def _can_be_sent(work: object) -> bool:
    try:
        pickle.dumps(work)
    except Exception:  # noqa: BLE001 - whatever the objects raise
        return False
    return True


def thread_child(function: Callable[..., T], args: Any, kwargs: Any) -> Coroutine[Any, Any, T]:
    """Return a coroutine that calls a function in a thread.

    Raises:
        TypeError: If *function* is not callable, or is a coroutine function.
    """
    return _child(in_thread, function, args, kwargs)


def process_child(function: Callable[..., T], args: Any, kwargs: Any) -> Coroutine[Any, Any, T]:
    """Return a coroutine that calls a function in another process.

    Raises:
        ModuleNotFoundError: If there is no anyio.
        TypeError: If *function* is not callable, or is a coroutine function.
    """
    _to_process()
    return _child(in_process, function, args, kwargs)


def _child(
    where: Callable[[Callable[..., T], Any, Any], Coroutine[Any, Any, T]],
    function: Callable[..., T],
    args: Any,
    kwargs: Any,
) -> Coroutine[Any, Any, T]:
    if not callable(function):
        msg = f"function must be callable, and not called yet, got {function!r}"
        raise TypeError(msg)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if inspect.iscoroutinefunction(function):
        msg = f"function must not be a coroutine function: call create_task({name}(...)) instead"
        raise TypeError(msg)
    child: Any = where(function, args, kwargs)
    child.__qualname__ = name  # what asyncio's logs show
    return cast("Coroutine[Any, Any, T]", child)


def _to_process() -> Any:
    # quattro_core needs nothing but the standard library: this is for those who have anyio.
    try:
        return importlib.import_module("anyio.to_process")
    except ModuleNotFoundError as exc:
        msg = "run_in_process needs anyio: pip install anyio"
        raise ModuleNotFoundError(msg, name=exc.name) from None
