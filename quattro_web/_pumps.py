"""Pumps: the functions that run as long as the app does."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Literal

from quattro_core import RestartPolicy, Supervisor
from quattro_web._arguments import checked_seconds, checked_text
from quattro_web._once import OnceLock

PumpFunction = Callable[..., Awaitable[Any]]
"""An async function of no arguments, or of one: the state that the lifespan has yielded.

It may also take ``task_status``, to say when it is ready, ``shutdown``, to know that the server is
shutting down, and ``lease``, if it runs once.
"""

OnFailure = Literal["stop", "restart", "ignore"]
OnReturn = Literal["stop", "restart", "ok"]

# What a pump may ask for by name, beside the state.
_HANDLES = frozenset({"task_status", "lease", "shutdown"})


class Pump:
    """An async function that runs as long as the app does, and what becomes of it when it ends.

    ::

        install(app, pumps=[Pump(poll, on_failure="restart")])

    Args:
        function: It takes no arguments, or one: the state that the app's lifespan has yielded.
            What else it needs is bound with `functools.partial`. If it takes a parameter named
            ``task_status``, the start-up of the app waits until it has called
            ``task_status.started()``. One named ``shutdown`` gets a `quattro_web.ShutdownEvent`:
            pumps run on until the last request has ended. One named ``lease`` gets the
            `quattro_web.Lease` of its *once*.
        name: Its name in logs and in `app_health`; by default the function's.
        on_failure: What an error means: ``"stop"`` shuts the server down, ``"restart"`` starts it
            again by the policy of *restart*, ``"ignore"`` leaves it at an error in the log.
        on_return: What its return means: ``"stop"``, as a pump that ends early is as dead as one
            that has failed; ``"restart"``; or ``"ok"``, for what is to be done once at the start.
        restart: How often, and after which time, it is started again, where ``"restart"`` is the
            policy. None means the defaults of `quattro_core.RestartPolicy`.
        ready_timeout: How many seconds the start-up waits for ``task_status.started()`` before it
            fails. None means for ever.
        once: A lock that lets it run in one process of many: `quattro_web.FileLock`, or one of
            `quattro_web.postgres` and `quattro_web.redis`. None means that it runs in each.

    Attributes:
        function: As it was given, like those that follow.
        name: Its name.
        on_failure: What an error means.
        on_return: What its return means.
        restart: How it is restarted; None where nothing was said.
        ready_timeout: How many seconds the start-up waits for it; None means for ever.
        once: Its lock, if it has one.

    Raises:
        TypeError: If *function* is not a function or takes other arguments; if another argument is
            of a wrong type.
        ValueError: If a policy has another name; if *restart* is given where none of them is
            ``"restart"``; if *ready_timeout* is not positive and finite.

    .. versionadded:: 0.1
    """

    __slots__ = (
        "_needs_name",
        "_takes",
        "_takes_state",
        "function",
        "name",
        "on_failure",
        "on_return",
        "once",
        "ready_timeout",
        "restart",
    )

    def __init__(
        self,
        function: PumpFunction,
        *,
        name: str | None = None,
        on_failure: OnFailure = "stop",
        on_return: OnReturn = "stop",
        restart: RestartPolicy | None = None,
        ready_timeout: float | None = 30.0,
        once: OnceLock | None = None,
    ) -> None:
        self.function: PumpFunction = _checked_function(function)
        self.name: str = checked_text("name", name or _name(function))
        self._takes: frozenset[str]
        self._takes_state, self._takes = _parameters(function, self.name)
        self.on_failure: OnFailure = on_failure
        self.on_return: OnReturn = on_return
        self.restart: RestartPolicy | None = restart
        self.ready_timeout: float | None = checked_seconds("ready_timeout", ready_timeout)
        self.once: OnceLock | None = _checked_once(once)
        self._needs_name: bool = name is not None or once is not None
        if "lease" in self._takes and once is None:
            msg = f"pump {self.name} takes a lease, which only a pump with once=... has"
            raise TypeError(msg)
        # What can't be supervised is an error now, not when the app starts. Each run has its own.
        Supervisor(
            partial(self._bound(None), **dict.fromkeys(self._takes - {"task_status"})),
            name=f"pump {self.name}",
            on_failure=on_failure,
            on_return=on_return,
            restart=restart,
        )

    def _bound(self, state: object) -> PumpFunction:
        """Return its function, which takes nothing more but what it has asked for by name."""
        return partial(self.function, state) if self._takes_state else self.function

    def __repr__(self) -> str:
        return f"<Pump {self.name}>"


def checked_pump(pump: Pump | PumpFunction) -> Pump:
    """Return the pump for a function, or the pump that it is already."""
    return pump if isinstance(pump, Pump) else Pump(pump)


def check_names(pumps: Iterable[Pump]) -> None:
    """Raise ValueError if two were given the same name, or would share a lock."""
    names: set[str] = set()
    owners: dict[str, str] = {}
    for pump in pumps:
        if not pump._needs_name:  # noqa: SLF001  # its own file
            continue
        if pump.name in names:
            msg = (
                f"two pumps are named {pump.name!r}: give one of them another, Pump(..., name=...)"
            )
            raise ValueError(msg)
        names.add(pump.name)
        key = None if pump.once is None else pump.once.key(pump.name)
        if key is not None and owners.setdefault(key, pump.name) != pump.name:
            msg = (
                f"pumps {owners[key]!r} and {pump.name!r} have one lock, {pump.once!r}: only one "
                "of them would ever run; give each a lock of its own"
            )
            raise ValueError(msg)


def unique_names(pumps: Iterable[Pump]) -> list[str]:
    """Return a name for each: functions of the same name, as a factory makes them, get numbers."""
    seen: Counter[str] = Counter()
    names = []
    for pump in pumps:
        seen[pump.name] += 1
        number = seen[pump.name]
        names.append(pump.name if number == 1 else f"{pump.name} ({number})")
    return names


def _checked_function(function: PumpFunction) -> PumpFunction:
    if inspect.iscoroutine(function):
        function.close()
        msg = f"a pump is a function, got the coroutine {function!r}: leave out the call"
        raise TypeError(msg)
    if not callable(function):
        msg = f"a pump is an async function, got {function!r}"
        raise TypeError(msg)
    return function


def _checked_once(once: OnceLock | None) -> OnceLock | None:
    if once is not None and not isinstance(once, OnceLock):
        msg = f"once must be a lock such as FileLock(), got {once!r}"
        raise TypeError(msg)
    return once


def _parameters(function: Callable[..., Any], name: str) -> tuple[bool, frozenset[str]]:
    """Return whether a function takes the state, and what it asks for by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin that tells nothing of itself
        return False, frozenset()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    handles = frozenset(p.name for p in named) & _HANDLES
    required = [p for p in named if p.default is p.empty and p.name not in _HANDLES]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        names = ", ".join(p.name for p in required)
        msg = (
            f"pump {name} takes {names}, but a pump is called with no argument, or with "
            "the lifespan's state as its only one: bind the others with functools.partial"
        )
        raise TypeError(msg)
    return bool(required), handles


def name_of(function: object) -> str | None:
    """Return the name of a function or coroutine, as its author knows it; None if it has none."""
    while isinstance(function, partial):
        function = function.func
    name: str | None = getattr(function, "__qualname__", None)
    return name


def _name(function: Callable[..., Any]) -> str:
    return name_of(function) or repr(function)
