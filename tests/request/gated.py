"""An app whose handler has children."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quattro_web import install

Endpoint = Callable[[Request], Awaitable[Response]]


def app_of(endpoint: Endpoint, **route: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint, **route)])
    install(app)
    return app


async def ticks(log: list[str], name: str, count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
    log.append(name)
