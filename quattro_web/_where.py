"""Where a task hangs."""

from __future__ import annotations

import asyncio
from typing import Any


def where(task: asyncio.Task[Any]) -> str:
    """Return the innermost line that *task* is suspended at, as ``function, file:line``."""
    found = "not started"
    awaitable: Any = task.get_coro()
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "ag_frame", None)
        frame = frame or getattr(awaitable, "gi_frame", None)
        if frame is None:
            break
        code = frame.f_code
        found = f"{code.co_qualname}, {code.co_filename}:{frame.f_lineno}"
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return found
