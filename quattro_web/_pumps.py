"""Pumps: the functions that run as long as the app does."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

PumpFunction = Callable[[], Awaitable[Any]] | Callable[[Any], Awaitable[Any]]
"""An async function of no arguments, or of one: the state that the lifespan has yielded."""


class Pump:
    """A pump function, checked, with its name for logs and tasks."""

    __slots__ = ("_function", "_takes_state", "name")

    def __init__(self, function: PumpFunction) -> None:
        if inspect.iscoroutine(function):
            function.close()
            msg = f"a pump is a function, got the coroutine {function!r}: leave out the call"
            raise TypeError(msg)
        if not callable(function):
            msg = f"a pump is an async function, got {function!r}"
            raise TypeError(msg)
        self._function: Callable[..., Any] = function
        self._takes_state = _takes_state(function)
        self.name = _name(function)

    async def run(self, state: Mapping[str, Any]) -> None:
        """Run the pump until it returns, fails or is cancelled."""
        awaitable = self._function(state) if self._takes_state else self._function()
        if not inspect.isawaitable(awaitable):
            msg = f"pump {self.name} is not an async function: it returned {awaitable!r}"
            raise TypeError(msg)
        await awaitable


def checked_pumps(functions: Iterable[PumpFunction]) -> tuple[Pump, ...]:
    """Return the pumps for a list of functions.

    Raises:
        TypeError: If one is no function, or takes more arguments than a pump gets.
    """
    if callable(functions):
        msg = f"pumps is a list of async functions, got {functions!r}: write pumps=[...]"
        raise TypeError(msg)
    return tuple(Pump(function) for function in functions)


def _takes_state(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin that tells nothing of itself
        return False
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        names = ", ".join(p.name for p in required)
        msg = (
            f"pump {_name(function)} takes {names}, but a pump is called with no argument, or with "
            "the lifespan's state as its only one: bind the others with functools.partial"
        )
        raise TypeError(msg)
    return bool(required)


def name_of(function: object) -> str | None:
    """Return the name of a function or coroutine, as its author knows it; None if it has none."""
    while isinstance(function, partial):
        function = function.func
    name: str | None = getattr(function, "__qualname__", None)
    return name


def _name(function: Callable[..., Any]) -> str:
    return name_of(function) or repr(function)
