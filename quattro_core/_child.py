"""What a group makes a task of: a coroutine, or a function of no arguments that returns one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, cast

T = TypeVar("T")

CoroutineOrFunction = Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]


def check(child: object) -> None:
    """Raise TypeError for what is neither a coroutine nor callable."""
    if not (asyncio.iscoroutine(child) or callable(child)):
        msg = f"a coroutine was expected, or a function that returns one, got {child!r}"
        raise TypeError(msg)


def coroutine_of(
    child: CoroutineOrFunction[T], context: Context | None = None
) -> Coroutine[Any, Any, T]:
    """Return the coroutine to run; a function is called, in *context*, for its coroutine.

    A coroutine is returned for a function that raises, or that returns something else, too: its
    turn may come long after the caller has gone on, so that the error is the child's.
    """
    if asyncio.iscoroutine(child):
        return child
    function = cast("Callable[[], Coroutine[Any, Any, T]]", child)
    try:
        coro = function() if context is None else context.run(function)
        if asyncio.iscoroutine(coro):
            return coro
        msg = f"{function!r} returned {coro!r}, not a coroutine"
        raise TypeError(msg)
    except BaseException as exc:
        return _fail(exc)


async def _fail(exc: BaseException) -> Any:
    try:
        raise exc
    finally:
        del exc


def close(child: CoroutineOrFunction[Any]) -> None:
    """Close a coroutine that will not run, so that no "never awaited" warning is left of it."""
    if asyncio.iscoroutine(child):
        child.close()
