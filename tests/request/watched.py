"""An app that is cancelled when its client leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quattro_web import (
    install,
)

Endpoint = Callable[[Request], Awaitable[Response]]


def app_of(endpoint: Endpoint, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])
    install(app, **{"cancel_on_disconnect": True, **options})
    return app


async def hang(log: list[str], name: str) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as exc:
        seconds = asyncio.get_running_loop().time()
        log.append(f"{name} cancelled after {seconds:.2f} s: {exc}")
        raise
