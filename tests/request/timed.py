"""An app that takes its time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from quattro_web import (
    install,
)
from tests.support.asgi import Exchange, get

Endpoint = Callable[[Request], Awaitable[Response]]


def app_of(endpoint: Endpoint, *, handlers: Any = None, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint)], exception_handlers=handlers)
    install(app, **options)
    return app


async def slow(request: Request) -> Response:
    await asyncio.sleep(60)
    return PlainTextResponse("late")


async def timed(app: Any, **options: Any) -> tuple[Exchange, float]:
    exchange = await get(app, **options)
    return exchange, asyncio.get_running_loop().time()
