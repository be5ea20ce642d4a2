"""An app whose handler hands work over."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI

from quattro_web import install
from quattro_web.fastapi import AppTaskGroup, RequestTaskGroup
from tests.support.apps import lifespan_of, pump_of, settle
from tests.support.asgi import run
from tests.support.lifespan import Life

visitor: ContextVar[str] = ContextVar("visitor")


async def fail() -> int:
    raise ZeroDivisionError("the work failed")


def app_with(hand_over: Callable[[AppTaskGroup], Any], log: list[str]) -> FastAPI:
    """Return an app whose handler hands work over, next to a child of its own."""
    app = FastAPI(lifespan=lifespan_of(log))

    @app.get("/items/{item}")
    async def handler(item: str, group: AppTaskGroup, tg: RequestTaskGroup) -> str:
        visitor.set(item)
        tg.create_task(asyncio.sleep(0))
        hand_over(group)
        return "accepted"

    install(app, pumps=[pump_of(log)])
    return app


def serve(hand_over: Callable[[AppTaskGroup], Any], log: list[str] | None = None) -> Life:
    """Serve one request of such an app, and one more in the same run, and shut down."""
    log = [] if log is None else log
    life = Life(app_with(hand_over, log), log=log)

    async def main() -> None:
        async with life:
            assert (await life.get("/items/5")).status == 200
            await settle()
            assert (await life.get("/docs")).status == 200

    run(main())
    return life
