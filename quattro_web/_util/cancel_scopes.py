"""anyio's cancel scopes, in which Starlette runs streaming responses and middlewares."""

from __future__ import annotations

import math

from anyio import CancelScope, current_effective_deadline


def shield() -> CancelScope:
    """Return a context manager for code that no scope around it cancels; none else is held up."""
    return CancelScope(shield=True)


def is_cancelled() -> bool:
    """Whether a scope around the current task is cancelled: it cancels the task again by itself."""
    return current_effective_deadline() == -math.inf
