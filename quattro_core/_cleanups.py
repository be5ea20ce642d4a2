"""Children that clean up: whoever would cancel them once more is cancelled when they have ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Container, Iterable
from types import FrameType
from typing import Any

from quattro_core._threads import innermost, local_of

Task = asyncio.Task[Any]

# asyncio hands a cancellation on to what a task awaits. Who awaits a child, or gathers some, hands
# it on at once: with that of the group, it is one. But whoever waits for others that wait for the
# child cancels them when it is cancelled itself, and by then the child cleans up.
#
#     group cancels     child            turn 1: cleans up
#     group cancels     body             turn 1: the inner group cancels its task
#                                        turn 2: the task hands it on; the clean-up is cut


def cut_short(
    task: Task, children: Container[Task], *, late: bool = False
) -> tuple[Task, bool] | None:
    """Return a child whose clean-up is cut if *task* is cancelled; None if there is none.

    Args:
        task: Who is to be cancelled.
        children: Those that clean up then.
        late: Whether they do already.

    Returns:
        The child, and whether *task* sees it if the child is cancelled.
    """
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None or (waiter.__class__ is asyncio.Future and _names(task)[1] is None):
        return None  # as most
    to_see: list[tuple[Any, bool, bool]] = [(task, late, True)]
    seen: set[Any] = set()
    while to_see:
        awaited, is_late, tells = to_see.pop()
        if awaited in seen or awaited.done():
            continue
        seen.add(awaited)
        if is_late and awaited is not task and awaited in children:
            return awaited, tells
        if not isinstance(awaited, asyncio.Task):
            # Those of a gather.
            to_see += [(each, is_late, tells) for each in getattr(awaited, "_children", ())]
            continue
        waiter = getattr(awaited, "_fut_waiter", None)
        if waiter is None:
            continue  # it runs, or is about to
        frame, name = _names(awaited)
        if frame is None or name is None:
            to_see.append((waiter, is_late, tells))
        else:
            value = local_of(frame, name)
            others: Iterable[Any] = (value,)
            if name == "self":
                background = getattr(value, "_background", None) or ()
                others = (*value._tasks, *background)  # noqa: SLF001  # asyncio's name, and anyio's
            elif name == "tasks":
                others, value = value, local_of(frame, "group")
            if getattr(value, "_aborting", False):
                continue  # a group cancels each of them once
            to_see += [(other, True, tells and name == "fut") for other in others]
    return None


def _names(task: Task) -> tuple[FrameType | None, str | None]:
    """Return the innermost frame of a task, and where in it those are for which it waits."""
    frame: FrameType | None = getattr(innermost(task.get_coro())[1], "cr_frame", None)
    if frame is None:
        return None, None
    return frame, _WAITING.get((frame.f_globals.get("__name__"), frame.f_code.co_name))


# What waits with a future of its own for tasks that it cancels when it is cancelled, and where it
# has them.
_WAITING: dict[object, str] = {
    ("asyncio.taskgroups", "__aexit__"): "self",
    ("asyncio.taskgroups", "_aexit"): "self",
    ("anyio._backends._asyncio", "__aexit__"): "self",
    ("quattro_core._taskgroup", "__aexit__"): "self",
    ("quattro_core._taskgroup", "finish"): "self",
    ("quattro_core._gather", "_ended"): "tasks",
}
if sys.version_info < (3, 12):
    _WAITING["asyncio.tasks", "wait_for"] = "fut"
