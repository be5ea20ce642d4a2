"""A pump: a function that runs as long as the app does, and what happens when it ends."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import tzinfo
from functools import partial
from typing import Any, Literal, TypedDict

from quattro_core import RestartPolicy, Supervisor
from quattro_web._locks.base import OnceLock
from quattro_web._pumps.cron import Cron
from quattro_web._util.arguments import checked_seconds, checked_text, checked_wait
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
    every: float | None
    cron: str | None
    timezone: tzinfo | str | None
    jitter: float
    wait_first: float
    catch_up: float | None


class Pump:
    """An async function that runs as long as the app does, and what happens when it ends.

    ::

        install(app, pumps=[Pump(poll, on_failure="restart")])

    Args:
        function: It takes no arguments, or one: the state that the app's lifespan yielded. Bind
            other arguments with `functools.partial`. It may request three objects by parameter
            name, like pytest fixtures. ``task_status``: the app's start-up waits until the pump
            calls ``task_status.started()``. ``shutdown``: a `quattro_web.ShutdownEvent`; pumps keep
            running until the last request has ended. ``lease``: the `quattro_web.Lease` of its
            *once* lock.
        name: Its name in logs and in `app_health`; by default the function's.
        on_failure: After an error, ``"stop"`` shuts the server down, ``"restart"`` restarts the
            pump as *restart* says, and ``"ignore"`` only logs the error.
        on_return: After a return, ``"stop"`` shuts the server down, since a pump that returns early
            is as dead as one that failed; ``"restart"`` restarts it; ``"ok"`` lets it end, for a
            function that runs once at the start.
        restart: How often, and after which delay, ``"restart"`` restarts it. None means the
            defaults of `quattro_core.RestartPolicy`.
        ready_timeout: How many seconds the start-up waits for ``task_status.started()`` before it
            fails. None means no limit.
        once: A lock that lets only one of many processes run it: `quattro_web.FileLock`, or a lock
            from `quattro_web.postgres` or `quattro_web.redis`. None means that every process runs
            it.
        every: The seconds from the start of one call to the start of the next, for a function that
            does its work and returns. Calls never overlap: if one takes longer, the calls that it
            missed are skipped. With ``"ignore"``, a failure is logged, and the next call comes at
            its time. None means that the function runs as long as the app.
        cron: Instead of *every*, when it is called: a cron expression of five fields, such as
            ``"0 3 * * *"`` for every night at three, or a nickname such as ``"@daily"``. Needs
            ``pip install "quattro-web[cron]"``.
        timezone: The time zone of *cron*: a ``zoneinfo.ZoneInfo``, or its name. None means UTC,
            which is the same on every machine.
        jitter: Delays each call of *every* or *cron* by a random time of up to this many seconds,
            so that many processes don't start at the same moment.
        wait_first: How many seconds before the first call of *every*; 0 means that it comes at the
            start.
        catch_up: If a call of *every* or *cron* was missed because the process was killed or the
            app was down, it is made up for, up to this many seconds late. The last run is
            remembered where the *once* lock is kept. Each call is then made at least once, so it
            may be made twice. 0 means that no call is made up for, but *every* keeps its times.
            None means that nothing is remembered.

    Attributes:
        function: The function.
        name: Its name.
        on_failure: Its policy after an error.
        on_return: Its policy after a return.
        restart: Its restart policy; None means the defaults.
        ready_timeout: How many seconds the start-up waits for it; None means no limit.
        once: Its lock, if it has one.
        every: The seconds from call to call, if given.
        cron: Its cron expression, if given.
        timezone: The time zone of *cron*, as given.
        jitter: By how many seconds a call may be delayed.
        wait_first: How many seconds before its first call.
        catch_up: Up to how many seconds late a missed call is made up for.

    Raises:
        ModuleNotFoundError: If *cron* is given, and cronsim is not installed.
        TypeError: If *function* is not a function or takes other arguments; if it takes
            ``task_status``, and *cron* is given; if another argument has the wrong type; if
            *catch_up* is given, and the *once* lock can't remember the last run.
        ValueError: If a policy is unknown; if *restart* is given although no policy is
            ``"restart"``; if *ready_timeout* or *every* is not positive and finite; if *cron* or
            *timezone* is invalid; if *jitter*, *wait_first* or *catch_up* is negative or not
            finite; if two arguments do not fit together.

    .. versionadded:: 0.1
    """

    __slots__ = (
        "_needs_name",
        "_takes",
        "_takes_state",
        "_times",
        "catch_up",
        "cron",
        "every",
        "function",
        "jitter",
        "name",
        "on_failure",
        "on_return",
        "once",
        "ready_timeout",
        "restart",
        "timezone",
        "wait_first",
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
        every: float | None = None,
        cron: str | None = None,
        timezone: tzinfo | str | None = None,
        jitter: float = 0.0,
        wait_first: float = 0.0,
        catch_up: float | None = None,
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
        self.every: float | None = checked_seconds("every", every)
        self.jitter: float = checked_wait("jitter", jitter)
        self.wait_first: float = checked_wait("wait_first", wait_first)
        self.cron: str | None = cron
        self.timezone: tzinfo | str | None = timezone
        self._times: Cron | None = None if cron is None else Cron(cron, timezone)
        self.catch_up: float | None = (
            None if catch_up is None else checked_wait("catch_up", catch_up)
        )
        self._check_schedule()
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

    def _check_schedule(self) -> None:
        """Raise an error if its times need what it does not have."""
        if self.every is not None and self.cron is not None:
            msg = f"every={self.every!r} and cron={self.cron!r} are two schedules: give it one"
            raise ValueError(msg)
        is_scheduled = self.every is not None or self.cron is not None
        if is_scheduled and self.on_return != "stop":
            what = f"every={self.every!r}" if self.cron is None else f"cron={self.cron!r}"
            msg = f"on_return={self.on_return!r} is not for a pump with {what}, which returns"
            raise ValueError(msg)
        if self.wait_first and self.every is None:
            msg = f"wait_first={self.wait_first!r} needs every=..., in seconds"
            raise ValueError(msg)
        if self.timezone is not None and self.cron is None:
            msg = f"timezone={self.timezone!r} needs cron=..., such as '0 3 * * *'"
            raise ValueError(msg)
        if self.cron is not None and "task_status" in self._takes:
            msg = (
                f"pump {self.name} takes task_status, for which the start-up of the app waits, but "
                f"with cron={self.cron!r} its first call comes later: leave it out"
            )
            raise TypeError(msg)
        if self.jitter and not is_scheduled:
            msg = f"jitter={self.jitter!r} needs every=..., in seconds, or cron=..."
            raise ValueError(msg)
        if self.catch_up is None:
            return
        if not is_scheduled or self.once is None:
            msg = (
                f"catch_up={self.catch_up!r} needs every=... or cron=..., and once=..., where the "
                "last run is remembered"
            )
            raise ValueError(msg)
        if not self.once.remembers:
            lock = type(self.once).__name__
            msg = (
                f"catch_up={self.catch_up!r} needs a lock that remembers the last run: {lock} must "
                "set remembers = True, and its claims must have recall() and remember(text)"
            )
            raise TypeError(msg)

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
                f"two pumps are named {pump.name!r}: give one of them another name, "
                "Pump(..., name=...)"
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
