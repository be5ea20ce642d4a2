"""FastAPI's exit stacks, in the scope of a request, which close its dependencies and uploads."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import Any


def holds_any(stack: AsyncExitStack) -> bool:
    """Whether there is anything to close."""
    try:
        return bool(stack._exit_callbacks)  # type: ignore[attr-defined]  # noqa: SLF001  # nothing else tells
    except AttributeError:  # it is kept elsewhere: there may be something
        return True


def push_callback(stack: AsyncExitStack, *callback: Any) -> None:
    """Put a callback, and whether it is synchronous, on a stack, as if nobody had replaced that."""
    AsyncExitStack._push_exit_callback(stack, *callback)  # type: ignore[attr-defined]  # noqa: SLF001  # all that is pushed goes there


def drop_callbacks_of(stack: AsyncExitStack, owner: object) -> None:
    """Take the methods of *owner* out of a stack, and leave what others have put in."""
    with suppress(AttributeError):
        callbacks = stack._exit_callbacks  # type: ignore[attr-defined]  # noqa: SLF001  # see above
        kept = [each for each in callbacks if getattr(each[1], "__self__", None) is not owner]
        callbacks.clear()
        callbacks.extend(kept)
