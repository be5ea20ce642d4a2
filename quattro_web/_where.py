"""Where a task hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import quattro_core

# What waits there waits for somebody else: the line that led there tells more.
_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (asyncio, quattro_core))


def where(task: asyncio.Task[Any]) -> str:
    """Return the line at which *task* is suspended, as ``function, file:line``.

    That is the innermost one outside of asyncio, or that of asyncio if there is no other.
    """
    found = innermost = "not started"
    awaitable: Any = task.get_coro()
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "ag_frame", None)
        frame = frame or getattr(awaitable, "gi_frame", None)
        if frame is None:
            break
        code = frame.f_code
        innermost = f"{code.co_qualname}, {code.co_filename}:{frame.f_lineno}"
        if not code.co_filename.startswith(_LIBRARIES):
            found = innermost
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return innermost if found == "not started" else found
