"""Routes that tell an orchestrator how the app is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quattro_web._app_group import run_of
from quattro_web._errors import NoTaskGroupError
from quattro_web._health import AppHealth, app_health, health_of


def health_routes(*, livez: str = "/livez", readyz: str = "/readyz") -> list[Route]:
    """Return two routes for an app: whether the process lives, and whether it is ready.

    ::

        app = Starlette(routes=[*health_routes(), ...])
        fastapi_app.router.routes.extend(health_routes())

    The first answers 200 as long as the event loop answers at all. The second answers 200 if
    `app_health` says that the app is ready, else 503: for one that starts, whose pump is down,
    that shuts down, or whose lifespan is not run. In a sub-app they tell of the app around it.
    Both tell why, as JSON; errors are left to the log, as they may tell what is nobody's business::

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


async def _live(request: Request) -> Response:
    return _report(_health(request), 200)


async def _ready(request: Request) -> Response:
    health = _health(request)
    return _report(health, 200 if health is not None and health.is_ready else 503)


def _health(request: Request) -> AppHealth | None:
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


def _report(health: AppHealth | None, status: int) -> Response:
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
