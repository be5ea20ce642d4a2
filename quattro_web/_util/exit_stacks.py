"""FastAPI's exit stacks, in the scope of a request, which close its dependencies and uploads."""

from __future__ import annotations

from contextlib import AsyncExitStack


def holds_any(stack: AsyncExitStack) -> bool:
    """Whether there is anything to close."""
    try:
        return bool(stack._exit_callbacks)  # type: ignore[attr-defined]  # noqa: SLF001  # nothing else tells
    except AttributeError:  # it is kept elsewhere: there may be something
        return True
