"""Routes that tell an orchestrator how the app is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quattro_web._health import app_health


def health_routes(*, livez: str = "/livez", readyz: str = "/readyz") -> list[Route]:
    """Return two routes for an app: whether the process lives, and whether it is ready.

    ::

        app = Starlette(routes=[*health_routes(), ...])
        fastapi_app.router.routes.extend(health_routes())

    The first answers 200 as long as the event loop answers at all. The second answers 200 if
    `app_health` says that the app is ready, else 503: for one that starts, whose pump is down, or
    that shuts down. Both name the pumps and their states, as JSON; errors are left to the log, as
    they may tell what is nobody's business.

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
    return _report(request, 200)


async def _ready(request: Request) -> Response:
    return _report(request, 200 if app_health(request.app).is_ready else 503)


def _report(request: Request, status: int) -> Response:
    health = app_health(request.app)
    return JSONResponse(
        {
            "ready": health.is_ready,
            "shutting_down": health.is_shutting_down,
            "pumps": {
                pump.name: {
                    "state": pump.state,
                    "since": pump.since.isoformat(),
                    "restarts": pump.restarts,
                    "holder": pump.holder,
                }
                for pump in health.pumps
            },
        },
        status,
        headers={"cache-control": "no-store"},
    )
