"""A pump: a function that runs as long as the app does, and what becomes of it when it ends."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Literal, TypedDict

from quattro_core import RestartPolicy, Supervisor
from quattro_web._locks.base import OnceLock
from quattro_web._util.arguments import checked_seconds, checked_text
from quattro_web._util.task_stacks import name_of

PumpFunction = Callable[..., Awaitable[Any]]
"""An async function of no arguments, or of one: the state that the lifespan has yielded.

It may also take ``task_status``, to say when it is ready, ``shutdown``, to know that the server is
shutting down, and ``lease``, if it runs once.
"""

OnFailure = Literal["stop", "restart", "ignore"]
OnReturn = Literal["stop", "restart", "ok"]

# The parameters that a pump may request by name, beside the state.
_HANDLES = frozenset({"task_status", "lease", "shutdown"})


class PumpOptions(TypedDict, total=False):
    """The keyword arguments of `Pump`, which describes them, for those who pass them on."""

    name: str | None
    on_failure: OnFailure
    on_return: OnReturn
    restart: RestartPolicy | None
    ready_timeout: float | None
    once: OnceLock | None


class Pump:
    """An async function that runs as long as the app does, and what becomes of it when it ends.

    ::

        install(app, pumps=[Pump(poll, on_failure="restart")])

    Args:
        function: It takes no arguments, or one: the state that the app's lifespan has yielded. Bind
            others with `functools.partial`. It may request three objects by parameter name, like a
            pytest fixture. ``task_status``: the start-up of the app waits until the pump has called
            ``task_status.started()``. ``shutdown``: a `quattro_web.ShutdownEvent`, since pumps run
            on until the last request has ended. ``lease``: the `quattro_web.Lease` of its *once*.
        name: Its name in logs and in `app_health`; by default the function's.
        on_failure: After an error, ``"stop"`` shuts the server down, ``"restart"`` starts the pump
            again by the policy of *restart*, and ``"ignore"`` only logs it.
        on_return: After a return, ``"stop"`` shuts the server down, since a pump that ends early is
            as dead as one that has failed; ``"restart"`` starts it again; ``"ok"`` lets it end, as
            a function that runs once at the start.
        restart: How often, and after which time, it is started again, where ``"restart"`` is the
            policy. None means the defaults of `quattro_core.RestartPolicy`.
        ready_timeout: How many seconds the start-up waits for ``task_status.started()`` before it
            fails. None means for ever.
        once: A lock that lets it run in one process of many: `quattro_web.FileLock`, or one of
            `quattro_web.postgres` and `quattro_web.redis`. None means that it runs in each.

    Attributes:
        function: The function.
        name: Its name.
        on_failure: Its policy after an error.
        on_return: Its policy after a return.
        restart: How it is restarted; None means the defaults.
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


def _name(function: Callable[..., Any]) -> str:
    return name_of(function) or repr(function)
