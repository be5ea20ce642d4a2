"""Pumps that fail, and apps that live with them."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette

from quattro_web import install
from tests.support.apps import lifespan_of, settle, soon
from tests.support.asgi import run
from tests.support.lifespan import Life

Pump = Callable[[], Awaitable[None]]


async def broken() -> None:
    await soon()
    raise ZeroDivisionError("the pump is broken")


async def untidy() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        raise ZeroDivisionError("the pump did not clean up")


def live(*pumps: Pump, log: list[str] | None = None) -> Life:
    app = Starlette(lifespan=lifespan_of([] if log is None else log))
    install(app, pumps=pumps)
    life = Life(app, log=log)

    async def main() -> None:
        async with life:
            await settle()

    run(main())
    return life
