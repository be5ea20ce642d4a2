"""Whose code has made a task."""

from __future__ import annotations

import asyncio
import linecache
import os
import sysconfig
from types import CodeType, FrameType
from typing import Any

from quattro_web._where import frames_of

# Whoever makes a task in a group of these has an owner for it: the group does not end before it.
_GROUPS = frozenset({"anyio", "quattro_core", "quattro_web", "trio"})

# What lies between a call of the user's and the event loop.
_LOOPS = frozenset({"asyncio", "uvloop"})

_LIBRARY = tuple(
    os.path.join(sysconfig.get_path(name), "")  # noqa: PTH118  # compared as text
    for name in ("stdlib", "platstdlib")
)
# What the steps of an async generator are awaited by.
_HIDING = frozenset({"anext_awaitable", "async_generator_asend", "async_generator_athrow"})

_INSTALLED = frozenset({"dist-packages", "site-packages"})


def maker_of(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the user's code that makes a task by itself, outside of any task group.

    None if it is made by a task group, by an installed package, or by the loop.

    Args:
        frame: The frame that calls the loop's ``create_task``.
    """
    while frame is not None:  # pragma: no branch  # the loop runs in a function of the watch's
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package in _GROUPS or module == "asyncio.taskgroups":
            break
        if package not in _LOOPS:
            return frame if _is_users(frame.f_code.co_filename) else None
        frame = frame.f_back
    return None


def outermost(maker: FrameType, root: FrameType | None) -> CodeType | None:
    """Return the function of the user's that the current task has come to *maker* by.

    None if it can't be told.

    Args:
        maker: The frame that makes a task.
        root: The outermost frame of the current task.
    """
    frame: FrameType | None = maker
    found = None
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            found = frame.f_code
        if frame is root:
            return found
        frame = frame.f_back
    return None


def root_of(task: asyncio.Task[Any] | None) -> FrameType | None:
    """Return the outermost frame of a task, if it has a coroutine with one."""
    return None if task is None else getattr(task.get_coro(), "cr_frame", None)


def may_be_in(task: asyncio.Task[Any], code: CodeType) -> bool:
    """Whether a task may be suspended in a function. What an async generator does is hidden."""
    frames, innermost = frames_of(task)
    is_hidden = type(innermost).__name__ in _HIDING
    return is_hidden or any(frame.f_code is code for frame in frames)


def line_in(frame: FrameType) -> tuple[str, str]:
    """Return where a frame is, as ``function, file:line``, and what the line says."""
    path, number = frame.f_code.co_filename, frame.f_lineno
    where = f"{frame.f_code.co_qualname}, {path}:{number}"
    return where, linecache.getline(path, number).strip()


def _is_users(path: str) -> bool:
    path = os.path.realpath(path)
    return not path.startswith(_LIBRARY) and _INSTALLED.isdisjoint(path.split(os.sep))  # noqa: PTH206  # it is called for each task
