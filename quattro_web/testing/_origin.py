"""Whose code has made a task."""

from __future__ import annotations

import linecache
import os
import sysconfig
from types import FrameType

# Whoever makes a task in a group of these has an owner for it: the group does not end before it.
_GROUPS = frozenset({"anyio", "quattro_core", "quattro_web", "trio"})

# What lies between a call of the user's and the event loop.
_LOOPS = frozenset({"asyncio", "uvloop"})

# Where a loop calls back: whoever runs the loop is further up the stack, and has made nothing.
_CALLS = frozenset({"_run", "_run_once", "run", "run_forever", "run_until_complete"})

_LIBRARY = tuple(
    os.path.join(sysconfig.get_path(name), "")  # noqa: PTH118  # compared as text
    for name in ("stdlib", "platstdlib")
)
_INSTALLED = frozenset({"dist-packages", "site-packages"})


def maker_of(frame: FrameType | None, root: FrameType | None) -> FrameType | None:
    """Return the frame of the user's code that makes a task by itself, outside of any task group.

    None if it is made by a task group, by an installed package, or by the loop.

    Args:
        frame: The frame that calls the loop's ``create_task``.
        root: The outermost frame of the current task, if there is one.
    """
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package in _GROUPS or module == "asyncio.taskgroups":
            return None
        if package not in _LOOPS:
            return frame if _is_users(frame.f_code.co_filename) else None
        if frame is root or frame.f_code.co_name in _CALLS:
            return None
        frame = frame.f_back
    return None


def line_in(frame: FrameType) -> tuple[str, str]:
    """Return where a frame is, as ``function, file:line``, and what the line says."""
    path, number = frame.f_code.co_filename, frame.f_lineno
    where = f"{frame.f_code.co_qualname}, {path}:{number}"
    return where, linecache.getline(path, number).strip()


def _is_users(path: str) -> bool:
    if path.startswith("<"):
        return False  # frozen modules, and code that was generated
    path = os.path.realpath(path)
    return not path.startswith(_LIBRARY) and _INSTALLED.isdisjoint(path.split(os.sep))
