"""FastAPI's exit stacks, in the scope of a request, which close its dependencies and uploads."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress


def holds_any(stack: AsyncExitStack) -> bool:
    """Whether there is anything to close."""
    try:
        return bool(stack._exit_callbacks)  # type: ignore[attr-defined]  # noqa: SLF001  # nothing else tells
    except AttributeError:  # it is kept elsewhere: there may be something
        return True


def push_context(stack: AsyncExitStack, context: object, leave: object) -> None:
    """Do what a stack does when it has entered a context, as if nobody had replaced that."""
    AsyncExitStack._push_async_cm_exit(stack, context, leave)  # type: ignore[attr-defined]  # noqa: SLF001  # nothing else is called then


def drop_callbacks_of(stack: AsyncExitStack, owner: object) -> None:
    """Take the methods of *owner* out of a stack, and leave what others have put in."""
    with suppress(AttributeError):
        callbacks = stack._exit_callbacks  # type: ignore[attr-defined]  # noqa: SLF001  # see above
        kept = [each for each in callbacks if getattr(each[1], "__self__", None) is not owner]
        callbacks.clear()
        callbacks.extend(kept)
