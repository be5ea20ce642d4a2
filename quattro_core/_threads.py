"""Worker threads that tasks wait for: such a task is cancelled when the thread has ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from gc import get_referents
from types import CoroutineType, FrameType
from typing import Any

_TO_THREAD, THREAD_CALL = "anyio.to_thread", "run_sync"

# Nothing can cancel a thread. anyio, in whose threads Starlette and FastAPI run what is not async,
# has a shield around the wait for one, and `asyncio.Task.cancel` breaks through it, as it does
# through `asyncio.to_thread`, which has none: the thread goes on with what is closed then. So a
# task is cancelled when its thread has ended, as a cancel scope of anyio's would do it. Nobody
# tells of that end, but the future that the task waits for does.
#
#     task     thread            callbacks of the future, in the order in which they were added
#     awaits   works
#              ends              1. the task goes on with what the thread has returned
#                                2. ours: the task is cancelled at what it awaits by now
#
# A task that calls one thread after the other is at anyio's checkpoint then, before the next one.


def cancel(task: asyncio.Task[Any], msg: object = None) -> None:
    """Cancel a task, but not while a thread works that it would give up: then, when it has ended.

    It is not cancelled any more if it has seen by then that what it waits for was cancelled:
    another cancellation would cut what it does about that.
    """
    if thread_call(task) is None:
        task.cancel(msg)
    else:
        after_thread(task, partial(cancel, task, msg))


def after_thread(task: asyncio.Task[Any], cancel_it: Callable[[], None]) -> bool:
    """Call back when the thread has ended that a task would give up if it were cancelled now.

    Returns:
        Whether there is one: otherwise nothing is called.
    """
    call = thread_call(task)
    if call is None:
        return False
    waiter = task._fut_waiter  # type: ignore[attr-defined]  # noqa: SLF001

    def ended(_: object) -> None:
        if not was_cancelled(waiter):
            cancel_it()

    call.add_done_callback(ended)
    return True


def thread_call(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Return what is done when a thread has ended that *task* would give up if it were cancelled.

    asyncio hands a cancellation on to what is awaited, so that this may be the thread of another
    task. Of those that `asyncio.gather` or an `asyncio.TaskGroup` wait for, it is the first that is
    found. A thread that was started with ``abandon_on_cancel=True`` may be given up.
    """
    to_see: list[Any] = [task]
    seen: set[Any] = set()  # tasks may wait for each other
    swallows = False  # whether a cancellation is lost that meets the end of what is waited for
    while to_see:
        awaited = to_see.pop()
        if awaited in seen:
            continue
        seen.add(awaited)
        if awaited.done():
            # A child that has just got its slot waits for none of asyncio's.
            if swallows and isinstance(awaited, asyncio.Future):
                return awaited  # who waits is woken in this turn
        elif isinstance(awaited, asyncio.Task):
            waiter = getattr(awaited, "_fut_waiter", None)
            if waiter is None:
                continue  # it runs, or is about to
            # The coroutine of a task that is done is not to be asked for: see `task_stacks`.
            caller, at = innermost(awaited.get_coro())
            code = getattr(at, "cr_code", None)
            frame = getattr(caller, "cr_frame", None)
            if frame is not None and is_thread_call(frame):
                # Where all threads are busy there is none yet, and more to wait for before.
                if not local_of(frame, "abandon_on_cancel"):
                    return waiter  # type: ignore[no-any-return]
            elif code is ASYNCIOS:
                return waiter  # type: ignore[no-any-return]
            elif code is WAIT_FOR:
                swallows = True
                to_see.append(local_of(at.cr_frame, "fut"))
            elif code in _EXITS:
                to_see += local_of(at.cr_frame, "self")._tasks  # noqa: SLF001
            elif swallows or waiter.__class__ is not asyncio.Future:
                to_see.append(waiter)
        else:
            tasks = getattr(awaited, "_children", ())  # of a gather
            to_see += [other for other in tasks if not other.done()] or tasks
    return None


def innermost(coro: Any) -> tuple[Any, Any]:
    """Return the innermost coroutine of a task, and the one that has called it, if any."""
    caller, at = None, coro
    while frame_of(inner := awaited_by(at)) is not None:
        caller, at = at, inner
    return caller, at


def is_thread_call(frame: FrameType) -> bool:
    """Whether this is the frame of anyio's that waits for a worker thread."""
    return frame.f_globals.get("__name__") == _TO_THREAD


def awaited_by(at: object) -> Any:
    """Return what a coroutine or generator awaits; None if it doesn't, or does not tell."""
    inner: Any
    if type(at) is CoroutineType:  # as most
        inner = at.cr_await
        if type(inner) is CoroutineType:
            return inner
    else:
        names = ("cr_await", "ag_await", "gi_yieldfrom")
        inner = next((i for name in names if (i := getattr(at, name, None)) is not None), None)
    while type(inner).__name__ in _STAND_FOR_OTHERS:
        inner = next((o for o in get_referents(inner) if type(o).__name__ in _INNER), None)
    return inner


# What is awaited in place of the next item of an async generator, or of a coroutine that has been
# asked for its iterator. They don't say so, but to the garbage collector.
_STAND_FOR_OTHERS = frozenset(
    {"anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper"}
)
_INNER = _STAND_FOR_OTHERS | {"async_generator", "coroutine"}


def frame_of(at: object) -> FrameType | None:
    """Return the frame of a coroutine or generator; None if it is none, or has ended."""
    frame: FrameType | None = (
        getattr(at, "cr_frame", None)
        or getattr(at, "ag_frame", None)
        or getattr(at, "gi_frame", None)
    )
    return frame


def local_of(frame: FrameType, name: str) -> Any:
    """Return a local variable of a function of a library's; None if it has none of that name.

    Before Python 3.13 a frame keeps a copy of all of them when it is asked: with an error among
    them, the traceback of which refers to the frame, that would be a reference cycle. What the
    function itself has got from `locals` is the same copy, so that this is not for anybody's.
    """
    names = frame.f_locals
    value = names.get(name)
    if names.__class__ is dict:
        names.clear()
    return value


def was_cancelled(future: asyncio.Future[Any]) -> bool:
    # A gather is not cancelled when one of its tasks is: it raises that.
    return future.done() and (
        future.cancelled() or isinstance(future.exception(), asyncio.CancelledError)
    )


ASYNCIOS = asyncio.to_thread.__code__
# Before 3.12 it makes a task of what it waits for, and waits for that with a future of its own.
WAIT_FOR = asyncio.wait_for.__code__ if sys.version_info < (3, 12) else object()
_EXITS = frozenset(
    getattr(asyncio.TaskGroup, name).__code__
    for name in ("__aexit__", "_aexit")
    if hasattr(asyncio.TaskGroup, name)
)
