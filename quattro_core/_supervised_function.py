"""The function that a supervisor runs: what it takes, and its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial


def takes_status(function: Callable[..., object], name: str) -> bool:
    """Return whether a function has the parameter ``task_status``.

    Raises:
        TypeError: If it is not a function, or needs other arguments.
    """
    if inspect.iscoroutine(function):
        function.close()
        msg = f"a Supervisor takes a function, got the coroutine {function!r}: leave out the call"
        raise TypeError(msg)
    if not callable(function):
        msg = f"a Supervisor takes an async function, got {function!r}"
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
