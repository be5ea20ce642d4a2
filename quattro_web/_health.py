"""The state of an app: its pumps, what was handed over to it, and whether it shuts down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from quattro_core import SupervisorState
from quattro_web._errors import NoTaskGroupError
from quattro_web._settings import current_loop

if TYPE_CHECKING:
    from quattro_web._app_run import AppRun
    from quattro_web._pump_run import PumpRun
    from quattro_web._pumps import Pump


class PumpState(StrEnum):
    """What a pump does.

    .. versionadded:: 0.1
    """

    STARTING = "starting"
    """It has not said yet that it is ready."""
    RUNNING = "running"
    STANDBY = "standby"
    """It runs in another process, or waits until a former holder has ended for sure."""
    UNKNOWN = "unknown"
    """It waits for its lock, and whether another process has it can't be told now."""
    BACKING_OFF = "backing off"
    """It has failed, and is started again in a while."""
    RETURNED = "returned"
    FAILED = "failed"
    STOPPED = "stopped"
    """It was ended, as the app has shut down."""


@dataclass(frozen=True, kw_only=True)
class PumpHealth:
    """The state of a pump.

    Attributes:
        name: Its name.
        state: What it does.
        is_up: Whether it does what it should: a pump that was let go (``on_failure="ignore"``,
            ``on_return="ok"``) does, and one that waits to take over.
        since: Since when it is in this state.
        restarts: How many times it was started again.
        last_error: Its last failure, or that of its lock; None if there was none.
        holder: Who holds its lock, as ``host:pid``, where that is known.
        token: The fencing token of its lock, if it is held here.

    .. versionadded:: 0.1
    """

    name: str
    state: PumpState
    is_up: bool
    since: datetime
    restarts: int = 0
    last_error: Exception | None = None
    holder: str | None = None
    token: int | None = None


@dataclass(frozen=True, kw_only=True)
class AppHealth:
    """The state of an app, in this process.

    Attributes:
        is_ready: Whether it should be sent requests: it has started, each of its pumps is up, and
            it does not shut down.
        is_shutting_down: Whether its shutdown has begun.
        pumps: Its pumps, in the order in which they were given.
        tasks: How much handed-over work runs or waits for its turn.
        failed_tasks: How much handed-over work has failed.

    .. versionadded:: 0.1
    """

    is_ready: bool
    is_shutting_down: bool
    pumps: tuple[PumpHealth, ...] = ()
    tasks: int = 0
    failed_tasks: int = 0


def app_health(app: Any) -> AppHealth:
    """Return the state of an app, as it runs in this process.

    Args:
        app: The app that was installed, that has a `task_group_lifespan`, or the
            `TaskGroupMiddleware` around another ASGI app. A sub-app has no state of its own.

    Raises:
        NoTaskGroupError: If it does not run.

    .. versionadded:: 0.1
    """
    runs = list(_runs_of(app))
    if not runs:
        msg = (
            f"{app!r} does not run: call quattro_web.install(app), and run its lifespan, as "
            "servers do, and a TestClient in its with block"
        )
        raise NoTaskGroupError(msg)
    return health_of(runs)


def health_of(runs: Sequence[AppRun]) -> AppHealth:
    """Return the state of an app by its runs in one event loop: more than one if it is composed."""
    pumps = tuple(_health(pump) for run in runs for pump in run.pumping.runs)
    is_ending = any(run.shutdown.has_begun for run in runs)
    has_started = all(run.has_started and not run.pumping.is_starting for run in runs)
    return AppHealth(
        is_ready=has_started and not is_ending and all(pump.is_up for pump in pumps),
        is_shutting_down=is_ending,
        pumps=pumps,
        tasks=sum(run.work.count for run in runs),
        failed_tasks=sum(run.work.failures for run in runs),
    )


def register(app: Any, run: AppRun) -> None:
    """Make the run of an app known."""
    _RUNS.setdefault(app, WeakSet()).add(run)


_RUNS: WeakKeyDictionary[Any, WeakSet[AppRun]] = WeakKeyDictionary()

_STATES = {
    SupervisorState.WAITING: PumpState.STARTING,
    SupervisorState.STARTING: PumpState.STARTING,
    SupervisorState.RUNNING: PumpState.RUNNING,
    SupervisorState.BACKING_OFF: PumpState.BACKING_OFF,
    SupervisorState.RETURNED: PumpState.RETURNED,
    SupervisorState.FAILED: PumpState.FAILED,
    SupervisorState.CANCELLED: PumpState.STOPPED,
}


def _runs_of(app: Any) -> Iterator[AppRun]:
    loop = current_loop()
    try:
        runs = _RUNS.get(app, ())
    except TypeError:  # None, or whatever else never was an app
        return
    for run in runs:
        # In a thread, whatever runs will do.
        if run.is_alive and (loop is None or run.loop in (None, loop)):
            yield run


def _health(run: PumpRun) -> PumpHealth:
    supervisor, once, pump = run.supervisor, run.once, run.pump
    state = _STATES[supervisor.state]
    if state in (PumpState.STARTING, PumpState.RUNNING) and once is not None and not once.is_held:
        if once.is_standby or once.is_settling:
            state = PumpState.STANDBY
        elif once.error is not None:
            state = PumpState.UNKNOWN
        else:  # there was no answer yet
            state = PumpState.STARTING
    is_up = state in (PumpState.RUNNING, PumpState.STANDBY) or _was_let_go(state, pump)
    return PumpHealth(
        name=run.name,
        state=state,
        is_up=is_up,
        since=supervisor.since,
        restarts=supervisor.restarts,
        last_error=supervisor.last_error or (once.error if once else None),
        holder=once.holder if once else None,
        token=once.token if once else None,
    )


def _was_let_go(state: PumpState, pump: Pump) -> bool:
    if state is PumpState.FAILED:
        return bool(pump.on_failure == "ignore")
    return state is PumpState.RETURNED and bool(pump.on_return == "ok")
