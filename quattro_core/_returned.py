"""Errors as results: the wrapper of a child whose caller asks for them."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

A = TypeVar("A")
T = TypeVar("T")


class Group(Protocol):
    """What this needs of a task group."""

    _returning: set[asyncio.Task[Any]] | None

    def _is_cancelled(self, task: asyncio.Task[Any]) -> bool: ...


async def returning_errors(
    group: Group, name: object, function: Callable[[A], Awaitable[T]], argument: A
) -> T | Exception:
    """Return what a call of a function returns, or the `Exception` that it raises.

    What it raises because the group has cancelled it is raised: nobody waits for its result any
    more, and an error of a clean-up would be lost.
    """
    task: Any = asyncio.current_task()
    error: Exception | None = None
    if group._returning is None:  # noqa: SLF001  # see Group
        group._returning = set()  # noqa: SLF001
    group._returning.add(task)  # noqa: SLF001
    try:
        return await function(argument)
    except CancelledError as exc:
        if task.cancelling():
            raise
        error = cancelled_error(f"{name} was cancelled by something that it awaited", exc)
        return error
    except Exception as exc:
        if task.cancelling() and group._is_cancelled(task):  # noqa: SLF001  # see Group
            raise
        return exc
    finally:
        group._returning.discard(task)  # noqa: SLF001
        del task, error  # the error refers to this frame


def cancelled_error(message: str, cause: CancelledError | None) -> RuntimeError:
    """Return the error of a call that nobody has asked to end, and that was cancelled."""
    error = RuntimeError(message)
    error.__cause__ = cause
    try:
        return error
    finally:
        del error, cause
