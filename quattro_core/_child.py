"""What a group makes a task of: a coroutine, or a function of no arguments that returns one."""

from __future__ import annotations

from asyncio import iscoroutine
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")

CoroutineFunction = Callable[[], Coroutine[Any, Any, T]]
# 3.11 counts generators as coroutines, and its signatures do.
CoroutineOrFunction = Coroutine[Any, Any, T] | Generator[Any, None, T] | CoroutineFunction[T]


def check(child: object) -> None:
    """Raise TypeError for what is neither a coroutine nor callable."""
    if not (iscoroutine(child) or callable(child)):
        msg = f"a coroutine was expected, or a function that returns one, got {child!r}"
        raise TypeError(msg)


def coroutine_of(child: CoroutineOrFunction[T]) -> Coroutine[Any, Any, T]:
    """Return the coroutine to run."""
    if iscoroutine(child):
        return child
    return _call(cast("CoroutineFunction[T]", child))


async def _call(function: CoroutineFunction[T]) -> T:
    # The function is called by the task, not by the group: in the context of the task, as part of
    # it for `current_task()`, and so that its error is the child's.
    coro = function()
    if not iscoroutine(coro):
        msg = f"{function!r} was expected to return a coroutine, got {coro!r}"
        raise TypeError(msg)
    return await coro


def close(child: CoroutineOrFunction[Any]) -> None:
    """Close a coroutine that will not run, so that no "never awaited" warning is left of it."""
    if iscoroutine(child):
        child.close()
