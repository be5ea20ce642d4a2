"""Tests, run by another pytest, that make tasks in all manners, and leave none of them behind."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from quattro_web import app_task_group, install, request_task_group
from quattro_web.testing import AppClient

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


async def forever() -> None:
    await asyncio.Event().wait()


async def pump() -> None:
    """One that always waits for a task that it has made itself."""
    while True:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(forever(), 0.01)
        await asyncio.gather(asyncio.sleep(0.01), asyncio.sleep(0))


async def awaits(request: Request) -> Response:
    task = asyncio.create_task(asyncio.sleep(0, "awaited"))
    return PlainTextResponse(await task)


async def cancels(request: Request) -> Response:
    """Cancel without waiting for the end of it."""
    tasks = [asyncio.create_task(forever()), asyncio.create_task(asyncio.sleep(0))]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return PlainTextResponse("cancelled")


async def cancels_slowly(request: Request) -> Response:
    """Cancel what takes longer to end than the request."""

    async def slow() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.05)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    task.cancel()
    return PlainTextResponse("cancelled")


async def grouped(request: Request) -> Response:
    group = request_task_group(request)
    group.create_background_task(pump())
    group.create_task(asyncio.sleep(0))
    async with asyncio.TaskGroup() as inner, anyio.create_task_group() as other:
        inner.create_task(asyncio.sleep(0.01))
        other.start_soon(asyncio.sleep, 0.01)
    return PlainTextResponse("grouped")


async def in_group_of_the_app(request: Request) -> Response:
    """A task group of asyncio's that the lifespan has opened ends with that."""
    request.app.state.group.create_task(asyncio.sleep(0.02))
    return PlainTextResponse("in its group")


async def in_a_generator(request: Request) -> Response:
    """Who waits for the task is in an async generator, which shows no frames of its own."""

    async def chunks() -> AsyncIterator[str]:
        yield await asyncio.create_task(asyncio.sleep(0.02, "chunk"))

    step = anext(chunks())
    request.app.state.group.create_task(asyncio.wait_for(step, 1))
    return PlainTextResponse("in a generator")


async def hands_over(request: Request) -> Response:
    async def work() -> None:
        await asyncio.gather(asyncio.sleep(0.02), asyncio.wait_for(asyncio.sleep(0.02), 1))

    app_task_group(request).create_task(work())
    return PlainTextResponse("handed over")


async def streams(request: Request) -> Response:
    async def chunks() -> AsyncIterator[str]:
        for _ in range(3):
            task = asyncio.create_task(asyncio.sleep(0, "chunk "))
            yield await task

    return StreamingResponse(chunks(), background=BackgroundTask(asyncio.sleep, 0))


async def events(request: Request) -> Response:
    async def chunks() -> AsyncIterator[str]:
        yield "event"

    return EventSourceResponse(chunks())


async def in_thread(request: Request) -> Response:
    return PlainTextResponse(await asyncio.to_thread(str, "thread"))


def sync(request: Request) -> Response:
    return PlainTextResponse("sync")


async def around(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


PATHS = (
    "awaits",
    "cancels",
    "cancels_slowly",
    "grouped",
    "in_group_of_the_app",
    "in_a_generator",
    "hands_over",
    "streams",
    "events",
    "in_thread",
    "sync",
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        app.state.group = group
        yield


def make_app() -> Starlette:
    routes = [Route(f"/{name}", globals()[name]) for name in PATHS]
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=around)]
    app = Starlette(routes=routes, middleware=middleware, lifespan=lifespan)
    install(app, pumps=[pump])
    return app


@pytest.fixture(scope="module")
def living() -> Iterator[TestClient]:
    """An app that outlives the tests."""
    with TestClient(make_app()) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_testclient(path: str) -> None:
    with TestClient(make_app()) as client:
        assert client.get(f"/{path}").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_living(living: TestClient, path: str) -> None:
    assert living.get(f"/{path}").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_client(path: str) -> None:
    async def main() -> None:
        async with AppClient(make_app()) as client:
            assert (await client.get(f"/{path}")).status_code == 200
            client.start("GET", f"/{path}")

    asyncio.run(main())


@pytest.mark.parametrize("path", PATHS)
def test_httpx(path: str) -> None:
    async def main() -> None:
        async with AppClient(make_app()) as client:
            transport = httpx.ASGITransport(app=client.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as other:
                assert (await other.get(f"/{path}")).status_code == 200

    asyncio.run(main())


def test_ends_soon_after_the_request() -> None:
    """A task that is about to end gets a few passes of the loop for it."""

    async def soon() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})
            kept.append(asyncio.create_task(soon()))

    async def main() -> None:
        async with AppClient(plain) as client:
            await client.get("/")
            await kept[0]

    kept: list[asyncio.Task[None]] = []
    asyncio.run(main())


def test_trio_in_an_app() -> None:
    app = Starlette(routes=[Route("/sync", sync)])
    with TestClient(app, backend="trio") as client:
        assert client.get("/sync").status_code == 200
