"""The health of an app: its pumps, its handed-over work, its shutdown; and routes for probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quattro_core import SupervisorState
from quattro_web._app.lookup import runs_for, runs_of
from quattro_web._app.run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._pumps.pump import Pump
from quattro_web._pumps.run import PumpRun


class PumpState(StrEnum):
    """What a pump is doing.

    .. versionadded:: 0.1
    """

    STARTING = "starting"
    """It has not called ``task_status.started()`` yet."""
    RUNNING = "running"
    STANDBY = "standby"
    """It runs in another process, or waits until a former holder has certainly ended."""
    UNKNOWN = "unknown"
    """It waits for its lock, which is unreachable or was just lost: another process may be running
    it."""
    BACKING_OFF = "backing off"
    """It has failed, and restarts after a delay."""
    RETURNED = "returned"
    FAILED = "failed"
    STOPPED = "stopped"
    """The app's shutdown has ended it."""


@dataclass(frozen=True, kw_only=True)
class PumpHealth:
    """The state of a pump.

    Attributes:
        name: Its name.
        state: What it is doing.
        is_up: Whether it is in a good state: running, waiting to take over, or ended where that is
            allowed (``on_failure="ignore"``, ``on_return="ok"``).
        since: When it entered this state.
        next_run: When it is called next, by its ``every`` or ``cron``; None while it is called,
            while it waits for its restart, and if another process runs it.
        restarts: How often it was restarted.
        last_error: Its last error, or that of its lock; None if there was none.
        holder: Who holds its lock, as ``host:pid``, if known.
        token: The fencing token of its lock, if this process holds it.

    .. versionadded:: 0.1
    """

    name: str
    state: PumpState
    is_up: bool
    since: datetime
    next_run: datetime | None = None
    restarts: int = 0
    last_error: Exception | None = None
    holder: str | None = None
    token: int | None = None


@dataclass(frozen=True, kw_only=True)
class AppHealth:
    """The state of an app, in this process.

    Attributes:
        is_ready: Whether it can take requests: it has started, all of its pumps are up, and it is
            not shutting down.
        is_shutting_down: Whether its shutdown has begun.
        pumps: Its pumps, in the order given.
        tasks: How many handed-over tasks are running or waiting for their turn.
        failed_tasks: How many handed-over tasks have failed.

    .. versionadded:: 0.1
    """

    is_ready: bool
    is_shutting_down: bool
    pumps: tuple[PumpHealth, ...] = ()
    tasks: int = 0
    failed_tasks: int = 0


def app_health(app: Any) -> AppHealth:
    """Return the state of an app in this process.

    Args:
        app: The app passed to `install`, an app with a `task_group_lifespan`, or the
            `TaskGroupMiddleware` around another ASGI app. A sub-app has no state of its own.

    Raises:
        NoTaskGroupError: If the app is not running.

    .. versionadded:: 0.1
    """
    runs = list(runs_of(app))
    if not runs:
        msg = (
            f"{app!r} is not running: call quattro_web.install(app), and run its lifespan, "
            "as servers do, and as a TestClient does in its with block"
        )
        raise NoTaskGroupError(msg)
    return health_of(runs)


def health_routes(*, livez: str = "/livez", readyz: str = "/readyz") -> list[Route]:
    """Return two routes for health probes: one for liveness, one for readiness.

    ::

        app = Starlette(routes=[*health_routes(), ...])
        fastapi_app.router.routes.extend(health_routes())

    The first answers 200 as long as the event loop responds at all. The second answers 200 if
    `app_health` says that the app is ready, otherwise 503: the app is starting or shutting down, a
    pump is down, or the lifespan is not running. In a sub-app, they report on the app around it.
    Both return details as JSON. These leave out errors, which may contain secrets; the log has
    them::

        {
          "ready": false,
          "running": true,
          "shutting_down": false,
          "pumps": {
            "poll": {
              "state": "backing off",
              "up": false,
              "since": "2026-01-31T12:00:00.123456+00:00",
              "next_run": null,
              "restarts": 2,
              "holder": null
            }
          }
        }

    ``up`` and the others are as in `PumpHealth`; ``state`` is the value of its `PumpState`. If the
    lifespan is not running, ``ready`` and ``running`` are false, and the rest is missing.

    Args:
        livez: The path of the liveness probe.
        readyz: The path of the readiness probe.

    .. versionadded:: 0.1
    """
    return [
        Route(livez, _live, include_in_schema=False),
        Route(readyz, _ready, include_in_schema=False),
    ]


def health_of(runs: Sequence[AppRun]) -> AppHealth:
    """Return the state of an app by its runs in one event loop: more than one if it is composed."""
    pumps = tuple(pump_health(pump) for run in runs for pump in run.pumps.runs)
    is_ending = any(run.shutdown.has_begun for run in runs)
    has_started = all(run.is_open and not run.pumps.is_starting for run in runs)
    return AppHealth(
        is_ready=has_started and not is_ending and all(pump.is_up for pump in pumps),
        is_shutting_down=is_ending,
        pumps=pumps,
        tasks=sum(run.handed_over.count for run in runs),
        failed_tasks=sum(run.handed_over.failures for run in runs),
    )


_STATES = {
    SupervisorState.WAITING: PumpState.STARTING,
    SupervisorState.STARTING: PumpState.STARTING,
    SupervisorState.RUNNING: PumpState.RUNNING,
    SupervisorState.BACKING_OFF: PumpState.BACKING_OFF,
    SupervisorState.RETURNED: PumpState.RETURNED,
    SupervisorState.FAILED: PumpState.FAILED,
    SupervisorState.CANCELLED: PumpState.STOPPED,
}


def pump_health(run: PumpRun) -> PumpHealth:
    """Return the state of a pump."""
    supervisor, once, pump = run.supervisor, run.once, run.pump
    state = _STATES[supervisor.state]
    if state in (PumpState.STARTING, PumpState.RUNNING) and once is not None and not once.is_held:
        if once.is_standby or once.is_settling:
            state = PumpState.STANDBY
        elif once.error is not None:
            state = PumpState.UNKNOWN
        else:  # there was no answer yet
            state = PumpState.STARTING
    is_up = state in (PumpState.RUNNING, PumpState.STANDBY) or _may_have_ended(state, pump)
    return PumpHealth(
        name=run.name,
        state=state,
        is_up=is_up,
        since=supervisor.since,
        next_run=run.next_run,
        restarts=supervisor.restarts,
        last_error=_last_error(run),
        holder=once.holder if once else None,
        token=once.token if once else None,
    )


def _last_error(run: PumpRun) -> Exception | None:
    error = run.supervisor.last_error
    return run.once.error if error is None and run.once is not None else error


def _may_have_ended(state: PumpState, pump: Pump) -> bool:
    if state is PumpState.FAILED:
        return bool(pump.on_failure == "ignore")
    return state is PumpState.RETURNED and bool(pump.on_return == "ok")


async def _live(request: Request) -> Response:
    return _response(_health_of(request), 200)


async def _ready(request: Request) -> Response:
    health = _health_of(request)
    return _response(health, 200 if health is not None and health.is_ready else 503)


def _health_of(request: Request) -> AppHealth | None:
    """Return the state of the app that serves the request; None if it does not run its lifespan.

    The app of the routes may be mounted in it, and a sub-app has no lifespan.
    """
    try:
        return health_of(runs_for(request))
    except NoTaskGroupError:
        return None


def _response(health: AppHealth | None, status: int) -> Response:
    content: dict[str, object] = {"ready": False, "running": False}
    if health is not None:
        content = {
            "ready": health.is_ready,
            "running": True,
            "shutting_down": health.is_shutting_down,
            "pumps": {
                pump.name: {
                    "state": pump.state,
                    "up": pump.is_up,
                    "since": pump.since.isoformat(),
                    "next_run": None if pump.next_run is None else pump.next_run.isoformat(),
                    "restarts": pump.restarts,
                    "holder": pump.holder,
                }
                for pump in health.pumps
            },
        }
    return JSONResponse(content, status, headers={"cache-control": "no-store"})
