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
from quattro_web._app.lookup import run_of, runs_of
from quattro_web._app.run import AppRun
from quattro_web._errors import NoTaskGroupError
from quattro_web._pumps.pump import Pump
from quattro_web._pumps.run import PumpRun


class PumpState(StrEnum):
    """What a pump does.

    .. versionadded:: 0.1
    """

    STARTING = "starting"
    """It has not called ``task_status.started()`` yet."""
    RUNNING = "running"
    STANDBY = "standby"
    """It runs in another process, or waits until a former holder has ended for sure."""
    UNKNOWN = "unknown"
    """It waits for its lock, which is out of reach or just lost: another process may run it."""
    BACKING_OFF = "backing off"
    """It has failed, and is started again in a while."""
    RETURNED = "returned"
    FAILED = "failed"
    STOPPED = "stopped"
    """The shutdown of the app has ended it."""


@dataclass(frozen=True, kw_only=True)
class PumpHealth:
    """The state of a pump.

    Attributes:
        name: Its name.
        state: What it does.
        is_up: Whether it does what it should: it runs, waits to take over, or may have ended
            (``on_failure="ignore"``, ``on_return="ok"``).
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
    runs = list(runs_of(app))
    if not runs:
        msg = (
            f"{app!r} does not run: call quattro_web.install(app), and run its lifespan, as "
            "servers do, and a TestClient in its with block"
        )
        raise NoTaskGroupError(msg)
    return health_of(runs)


def health_routes(*, livez: str = "/livez", readyz: str = "/readyz") -> list[Route]:
    """Return two routes for an app: whether the process lives, and whether it is ready.

    ::

        app = Starlette(routes=[*health_routes(), ...])
        fastapi_app.router.routes.extend(health_routes())

    The first answers 200 as long as the event loop answers at all. The second answers 200 if
    `app_health` says that the app is ready, else 503: for one that starts, whose pump is down,
    that shuts down, or whose lifespan is not run. In a sub-app they report on the app around it.
    Both give the reason as JSON, without errors, which may hold secrets: those are in the log::

        {
          "ready": false,
          "running": true,
          "shutting_down": false,
          "pumps": {
            "poll": {
              "state": "backing off",
              "up": false,
              "since": "2026-01-31T12:00:00.123456+00:00",
              "restarts": 2,
              "holder": null
            }
          }
        }

    ``up`` and the others are as in `PumpHealth`; *state* is the value of its `PumpState`. Where the
    lifespan is not run, ``ready`` and ``running`` are false, and the rest is missing.

    Args:
        livez: The path of the first, for a liveness probe.
        readyz: The path of the second, for a readiness probe.

    .. versionadded:: 0.1
    """
    return [
        Route(livez, _live, include_in_schema=False),
        Route(readyz, _ready, include_in_schema=False),
    ]


def health_of(runs: Sequence[AppRun]) -> AppHealth:
    """Return the state of an app by its runs in one event loop: more than one if it is composed."""
    pumps = tuple(_pump_health(pump) for run in runs for pump in run.pumps.runs)
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


def _pump_health(run: PumpRun) -> PumpHealth:
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
        return app_health(request.app)
    except NoTaskGroupError:
        pass
    try:
        return health_of([run_of(request)])
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
                    "restarts": pump.restarts,
                    "holder": pump.holder,
                }
                for pump in health.pumps
            },
        }
    return JSONResponse(content, status, headers={"cache-control": "no-store"})
