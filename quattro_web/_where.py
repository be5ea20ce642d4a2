"""Where a task hangs."""

from __future__ import annotations

import asyncio
from types import CoroutineType, FrameType
from typing import Any

# What waits there waits for somebody else: the line that led there tells more.
_LIBRARIES = frozenset({"anyio", "asyncio", "quattro_core"})


def waits_for_thread(task: asyncio.Task[Any]) -> bool:
    """Whether *task* waits for a worker thread that anyio has started, as for a ``def`` endpoint.

    A thread can't be cancelled, and `asyncio.Task.cancel` breaks through anyio's shield around the
    wait for it: the thread would go on without the dependencies that are closed then.
    """
    return any(map(_is_thread_call, frames_of(task)[0]))


def needs_thread(task: asyncio.Task[Any]) -> bool:
    """Whether the thread that *task* waits for works, and may not go on by itself.

    It may where it was started with ``abandon_on_cancel=True``. Where all threads are busy, there
    is none yet, but something else to wait for: then there are more frames.
    """
    caller = coro = task.get_coro()
    # As `frames_of`, but sooner: it is asked of every background task that ends.
    while (awaited := getattr(coro, "cr_await", None)).__class__ is CoroutineType:
        caller, coro = coro, awaited
    frame: FrameType | None = None if caller is coro else getattr(caller, "cr_frame", None)
    return (
        frame is not None and _is_thread_call(frame) and not frame.f_locals.get("abandon_on_cancel")
    )


def _is_thread_call(frame: FrameType) -> bool:
    return (
        frame.f_code.co_name == "run_sync" and frame.f_globals.get("__name__") == "anyio.to_thread"
    )


def where(task: asyncio.Task[Any]) -> str:
    """Return the line at which *task* is suspended, as ``function, file:line``.

    That is the innermost one outside of asyncio, or that of asyncio if there is no other.
    """
    found = innermost = None
    for frame in frames_of(task)[0]:
        innermost = frame
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIBRARIES:
            found = frame
    at = found or innermost
    return "not started" if at is None else line_of(at)


def line_of(frame: FrameType) -> str:
    """Return the line at which a frame is, as ``function, file:line``."""
    return f"{frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}"


def frames_of(task: asyncio.Task[Any]) -> tuple[list[FrameType], object]:
    """Return the frames in which *task* is suspended, the outermost one first, and what it awaits.

    That has no frame: a future, most of the time.
    """
    frames = []
    awaitable: Any = task.get_coro()
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "ag_frame", None)
        frame = frame or getattr(awaitable, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return frames, awaitable
