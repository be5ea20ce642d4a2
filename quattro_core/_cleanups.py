"""Children that clean up: tasks that would cancel them again are cancelled when they have ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from types import CoroutineType, FrameType
from typing import Any

from quattro_core._threads import ASYNCIOS, THREAD_CALL, innermost, local_of

Task = asyncio.Task[Any]

# asyncio hands a cancellation on to what a task awaits. Who awaits a child, or gathers some, hands
# it on at once: with that of the group, it is one. But whoever waits for others that wait for the
# child cancels them when it is cancelled itself, and by then the child cleans up.
#
#     group cancels     child            turn 1: cleans up
#     group cancels     body             turn 1: the inner group cancels its task
#                                        turn 2: the task hands it on; the clean-up is cut


def waits_alone(task: Task) -> bool:
    """Tell, as fast as can be, that nobody else is cut short if *task* is cancelled, as of most.

    Otherwise somebody may be: a thread (`thread_call`), or a child that cleans up (`cut_short`).
    """
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None:
        return True  # it runs, or is about to, or is done
    if waiter.__class__ is not asyncio.Future:
        return False
    caller: Any = None
    at: Any = None
    inner: Any = task.get_coro()
    while type(inner) is CoroutineType:
        caller, at, inner = at, inner, inner.cr_await
    if type(inner) is not type(iter(waiter)):
        return False  # a generator, for one
    # By names, since a coroutine has its code at hand, and makes its frame when it is asked.
    if caller is not None and caller.cr_code.co_name == THREAD_CALL:
        return False
    return at.cr_code.co_name not in _NAMES


def cut_short(
    task: Task, is_cancelled: Callable[[Task], bool], *, late: bool = False
) -> tuple[Task, bool] | None:
    """Return a child whose clean-up is cut if *task* is cancelled; None if there is none.

    There is none either if it waits for *task* in turn: nothing but its own end would end that.

    Args:
        task: Who is to be cancelled.
        is_cancelled: Whether a task is a child that is cancelled in this turn of the event loop, or
            was before.
        late: Whether they were before, and clean up already.

    Returns:
        The child, and whether *task* sees it if the child is cancelled.
    """
    found: tuple[Task, bool] | None = None
    to_see: list[tuple[Any, bool, bool]] = [(task, late, True)]
    seen: set[Any] = set()
    while to_see:
        awaited, is_late, tells = to_see.pop()
        if awaited is task and seen:
            return None
        if awaited in seen or awaited.done():
            continue
        seen.add(awaited)
        if awaited is not task and (is_late or _cleans_up(awaited)) and is_cancelled(awaited):
            found = awaited, tells
        # A gather that returns errors tells of none.
        to_see += [(each, is_late, False) for each in getattr(awaited, "_children", ())]
        waiter = getattr(awaited, "_fut_waiter", None)
        if waiter is None:
            continue  # it runs, or is about to, or is no task
        where = _tasks_of(awaited)
        if where is None:
            to_see.append((waiter, is_late, tells))
            continue
        frame, name = where
        value = local_of(frame, name)
        others: Iterable[Any] = (value,)
        if name == "self":
            # asyncio's name, and anyio's.
            others = (*value._tasks, *(getattr(value, "_background", None) or ()))  # noqa: SLF001  # nothing else tells
        elif name == "tasks":
            others = value
        to_see += [(other, True, tells and name == "fut") for other in others]
    return found


def _cleans_up(awaited: Any) -> bool:
    """Whether a task has met its cancellation: another one would interrupt its clean-up.

    A task that was cancelled in this turn of the event loop has not met it yet.
    """
    while isinstance(awaited, asyncio.Task) and awaited.cancelling():
        waiter = getattr(awaited, "_fut_waiter", None)
        if not isinstance(waiter, asyncio.Task) or not waiter.cancelling():
            is_due = getattr(awaited, "_must_cancel", False) or (
                waiter is not None
                and (waiter.cancelled() or getattr(waiter, "_cancel_requested", False))
            )
            return not is_due
        awaited = waiter
    return False


def _tasks_of(task: Task) -> tuple[FrameType, str] | None:
    """Return where those are for which a task waits with a future of its own; None if it doesn't.

    That is the frame that waits, and the name under which it has them.
    """
    frame: FrameType | None = getattr(innermost(task.get_coro())[1], "cr_frame", None)
    if frame is None:
        return None
    name = _WAITING.get((frame.f_globals.get("__name__"), frame.f_code.co_name))
    return None if name is None else (frame, name)


# What waits with a future of its own for tasks that it cancels when it is cancelled, and the name
# under which it has them.
_WAITING: dict[tuple[object, str], str] = {
    ("asyncio.taskgroups", "__aexit__"): "self",
    ("asyncio.taskgroups", "_aexit"): "self",
    ("anyio._backends._asyncio", "__aexit__"): "self",
    ("quattro_core._taskgroup", "__aexit__"): "self",
    ("quattro_core._taskgroup", "finish"): "self",
    ("quattro_core._gather", "_ended"): "tasks",
}
if sys.version_info < (3, 12):
    _WAITING["asyncio.tasks", "wait_for"] = "fut"
# The names of their code, and of what waits for a thread of asyncio's.
_NAMES = frozenset({ASYNCIOS.co_name, *(name for _, name in _WAITING)})
