"""Tasks: what one is made of, and which loops make them in asyncio's own way."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import BaseEventLoop, base_events, iscoroutine
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")

CoroutineFunction = Callable[[], Coroutine[Any, Any, T]]
# 3.11 counts generators as coroutines, and its signatures do.
CoroutineOrFunction = Coroutine[Any, Any, T] | Generator[Any, None, T] | CoroutineFunction[T]


def check_child(child: object) -> None:
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


def close_wrapped(task: asyncio.Task[Any], coro: Coroutine[Any, Any, Any]) -> None:
    """Close a coroutine that a task factory has put into another one, if the task never starts it.

    Those that trace tasks do so. A task that is cancelled before its first step is told of it by
    its own coroutine, and the one in it would warn that it was never awaited.
    """
    if not task.done() and task.get_coro() is not coro and hasattr(coro, "cr_frame"):
        task.add_done_callback(lambda _: close(coro) if _is_new(coro) else None)


def _is_new(coro: Any) -> bool:
    return inspect.getcoroutinestate(coro) == inspect.CORO_CREATED


# Without a task factory, ``loop.create_task(coro, name=name)`` of asyncio is
# ``asyncio.Task(coro, loop=loop, name=name)`` after checks which a loop that runs here has passed.
# To leave them out makes a child two thousand instructions cheaper, one in twenty-five of all that
# it takes. A loop with its own (uvloop), or one that somebody has patched to look at tasks, is
# asked as ever.
_create_task = BaseEventLoop.create_task
# Somebody may have replaced it before we were imported: then no loop has asyncio's own.
_is_own = _create_task.__code__.co_filename == base_events.__file__

ASYNCIOS_CREATE_TASK: object = _create_task if _is_own else object()
