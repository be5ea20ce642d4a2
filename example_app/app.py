"""How the board is put together."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.staticfiles import StaticFiles

from example_app import demo, routes, streams
from example_app.limits import BodyLimit
from example_app.pumps import pumps_of
from example_app.settings import Settings
from example_app.state import open_state
from quattro_web import ShutdownGrace, health_routes, install
from quattro_web.fastapi import task_router

CHECKS_AT_ONCE = 10
GRACE = ShutdownGrace(requests=3, tasks=2, pumps=2, resources=2)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the app; without settings, those of the environment."""
    # The interactive documentation would load its scripts from elsewhere.
    app = FastAPI(title="Status board", lifespan=open_state, docs_url=None, redoc_url=None)
    app.state.settings = settings = settings or Settings.from_environment()
    app.state.places, pumps = [], pumps_of(settings)
    if settings.jobs:
        from example_app.places import places_of, workers_of  # noqa: PLC0415  # needs docket

        app.state.places = places_of(settings)
        if settings.jobs == "memory://":
            pumps += workers_of(app.state.places)
    app.include_router(routes.router)
    app.include_router(streams.router)
    app.include_router(demo.router)
    app.include_router(task_router(dependencies=[Depends(routes.may_look)]))
    app.router.routes.extend(health_routes())
    app.mount("/static", StaticFiles(directory=routes.STATIC))
    app.add_middleware(BodyLimit)
    # A page elsewhere may let its own name lead here, and would count as the board's own page then.
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=settings.allowed_hosts, www_redirect=False
    )
    install(
        app,
        pumps=pumps,
        concurrency_limit=CHECKS_AT_ONCE,
        app_concurrency_limit=CHECKS_AT_ONCE,
        app_max_waiting=100,
        shutdown_grace=GRACE,
    )
    return app
