"""An app whose requests stay open until they are told to go on, and that counts what is there."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.memory import there
from benchmarks.web_apps import TEXT, watching
from quattro_web import install, request_task_group

BY_HAND, OURS, WATCHING = "by hand", "ours", "ours, watching"
KINDS = (BY_HAND, OURS, WATCHING)


class Held:
    """The children of the requests that are open."""

    def __init__(self) -> None:
        self._arrived = asyncio.Semaphore(0)
        self._freed = asyncio.Event()

    async def child(self) -> None:
        """Wait until all are freed."""
        self._arrived.release()
        await self._freed.wait()

    async def free(self, count: int) -> dict[str, int]:
        """Wait for so many; return what is there, and free them."""
        for _ in range(count):
            await self._arrived.acquire()
        found = there()
        self._freed.set()
        self._freed = asyncio.Event()
        return found


def held_app(kind: str) -> Starlette:
    """Return an app, with our middleware or without."""
    held = Held()

    async def wait(request: Request) -> Response:
        if kind == BY_HAND:
            async with asyncio.TaskGroup() as group:
                group.create_task(held.child())
        else:
            request_task_group(request).create_task(held.child())
        return PlainTextResponse(TEXT)

    async def free(request: Request) -> Response:
        return JSONResponse(await held.free(int(request.query_params["count"])))

    async def alive(_: Request) -> Response:
        gc.collect()
        return JSONResponse(there())

    async def trace(_: Request) -> Response:
        tracemalloc.start()
        return JSONResponse(there())

    async def hello(_: Request) -> Response:
        return PlainTextResponse(TEXT)

    paths = {"/": hello, "/wait": wait, "/free": free, "/alive": alive, "/trace": trace}
    app = Starlette(routes=[Route(path, endpoint) for path, endpoint in paths.items()])
    if kind != BY_HAND:
        (install if kind == OURS else watching)(app)
    return app
