"""The function that a supervisor runs: what it takes, its name, and what its end means."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, cast


def takes_status(function: Callable[..., object], name: str) -> bool:
    """Return whether a function has the parameter ``task_status``.

    Raises:
        TypeError: If it is not a function, yields, blocks, or needs other arguments.
    """
    if inspect.iscoroutine(function):
        function.close()
        msg = f"a Supervisor takes a function, got the coroutine {function!r}: leave out the call"
        raise TypeError(msg)
    if not callable(function):
        msg = f"a Supervisor takes an async function, got {function!r}"
        raise TypeError(msg)
    if inspect.isasyncgenfunction(function):
        msg = f"{name} is an async generator: nothing awaits it, leave out the yield"
        raise TypeError(msg)
    if _blocks(function):
        msg = (
            f"{name} is a def function, which would block the event loop: make it async def, with "
            "asyncio.to_thread(...) for what blocks; or, if it returns an awaitable, say so in its "
            "annotation"
        )
        raise TypeError(msg)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin that tells nothing of itself
        return False
    own = [p for p in parameters if p.name == "task_status"]
    others = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p not in own
    ]
    if others:
        msg = f"{name} takes {', '.join(others)}: bind them with functools.partial"
        raise TypeError(msg)
    if own and own[0].kind is inspect.Parameter.POSITIONAL_ONLY:
        msg = f"{name} takes task_status by position only, but gets it by its name"
        raise TypeError(msg)
    return bool(own)


def name_of(function: object) -> str:
    """Return the name of a function, as its author knows it."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", None) or repr(function)


def as_error(exc: BaseException, name: str) -> Exception:
    """Return an error for what is none: left as it is, it would end more than the function."""
    if isinstance(exc, Exception):
        return exc
    if isinstance(exc, asyncio.CancelledError):
        error = RuntimeError(f"{name} was cancelled by something it awaited")
    else:
        error = RuntimeError(f"{name} raised {exc!r}")
    error.__cause__ = exc
    return error


def is_closed(exc: BaseException, task: asyncio.Task[Any]) -> bool:
    """Whether this is the GeneratorExit of a coroutine that is closed from outside, not its own."""
    if not isinstance(exc, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not task
    except RuntimeError:  # the event loop has ended
        return True


def current_task() -> asyncio.Task[Any]:
    """Return the current task, where there is one for sure."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


def checked_policy(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """Return a policy that was given as argument *name*, if it is one of the choices."""
    if value not in choices:
        msg = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(msg)
    return value


def _blocks(function: object) -> bool:
    """Tell whether a function does its work by being called, so that nothing could be awaited."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    return (
        isinstance(function, FunctionType)
        and function.__name__ != "<lambda>"
        and not inspect.iscoroutinefunction(function)
        and function.__annotations__.get("return") in (None, "None")
    )
