"""What can be known of a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any, cast


def current_task() -> asyncio.Task[Any]:
    """Return the current task, where there is one for sure."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


def is_cancelled() -> bool:
    """Tell whether the current task was asked to end. A CancelledError alone does not say so."""
    return bool(current_task().cancelling())
