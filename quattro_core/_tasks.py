"""Tasks: how they are created, and which event loops create them in asyncio's own way."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import BaseEventLoop, base_events, iscoroutine
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")

CoroutineFunction = Callable[[], Coroutine[Any, Any, T]]
# 3.11 counts generators as coroutines, and its signatures do.
CoroutineOrFunction = Coroutine[Any, Any, T] | Generator[Any, None, T] | CoroutineFunction[T]
# What is gathered: children that run already as well.
Gathered = CoroutineOrFunction[T] | asyncio.Task[T]


def check_child(child: object) -> None:
    """Raise TypeError for what is neither a coroutine nor callable."""
    # Python 3.11 counts generators as coroutines.
    is_generator = getattr(child, "__name__", None) == "<genexpr>"
    if is_generator or not (iscoroutine(child) or callable(child)):
        msg = f"a coroutine was expected, or a function that returns one, got {child!r}"
        if is_generator or isinstance(child, (list, tuple, set)):
            msg += ": for several, put a star in front of them, as in gather(*coroutines)"
            for each in () if is_generator else cast("list[Any]", child):
                close(each)
        elif isinstance(child, asyncio.Future):
            msg += ": it is already running, so await it"
            if not isinstance(child, asyncio.Task):
                # Nothing but its thread or its process can end it.
                msg += (
                    "; instead of loop.run_in_executor, call run_in_thread(function, ...) or "
                    "run_in_process(function, ...) of the group"
                )
        raise TypeError(msg)


def coroutine_of(child: CoroutineOrFunction[T]) -> Coroutine[Any, Any, T]:
    """Return the coroutine to run."""
    if child.__class__ is CoroutineType or iscoroutine(child):
        return cast("Coroutine[Any, Any, T]", child)
    return _call(cast("CoroutineFunction[T]", child))


async def _call(function: CoroutineFunction[T]) -> T:
    # The function is called by the task, not by the group: in the context of the task, as part of
    # it for `current_task()`, and so that its error is the child's.
    coro = function()
    if not iscoroutine(coro):
        msg = f"{function!r} was expected to return a coroutine, got {coro!r}"
        raise TypeError(msg)
    return await coro


def schema_or_way_out(source: object, handler: Callable[[object], T]) -> T:
    """Return pydantic's schema for what only a `TaskGroup` has, if there is one.

    Raises:
        TypeError: If there is none.
    """
    try:
        return handler(source)
    except RuntimeError:  # pydantic's
        msg = (
            "FastAPI can't read a TaskGroup from a request, nor make one: annotate the parameter "
            "with quattro_web.fastapi.RequestTaskGroup, which FastAPI injects, without Depends()"
        )
        raise TypeError(msg) from None


def refuse_arguments(method: str, child: object, args: tuple[object, ...]) -> NoReturn:
    """Raise TypeError for arguments that are given as to a thread: nothing calls with them."""
    close(child)
    name = getattr(child, "__name__", "function")
    given = ", ".join(map(repr, args))
    if iscoroutine(child):
        way_out = f"{given} is no argument of it; a name is given as name=..."
    elif inspect.iscoroutinefunction(child):
        way_out = f"call the function, as in {method}({name}({given}))"
    else:
        way_out = f"for a function that is not async, call run_in_thread({name}, {given})"
    msg = f"{method} takes one coroutine: {way_out}"
    raise TypeError(msg)


class NotHere:
    """A method that people look for here, since others have it: there is none, says the error.

    Args:
        line: What is right.
        called: What it is called, if that is not its name.
    """

    def __init__(self, line: str, *, called: str = "") -> None:
        self._line = line
        self._name = called

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__} has no {self._name or name}"

    def __get__(self, instance: object, owner: type | None = None) -> NoReturn:
        msg = f"{self._name}: write {self._line}"
        raise AttributeError(msg)


def close(child: object) -> None:
    """Close a coroutine that will not run, so that no "never awaited" warning is left of it."""
    if iscoroutine(child):
        child.close()


def close_wrapped(task: asyncio.Task[Any], coro: Coroutine[Any, Any, Any]) -> None:
    """Close a coroutine that a task factory has put into another one, if the task never starts it.

    Those that trace tasks do so. A task that is cancelled before its first step is told of it by
    its own coroutine, and the one in it would warn that it was never awaited. An eager one that is
    done is not asked for its own: before 3.12.5 that crashes (cpython 122332).
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
