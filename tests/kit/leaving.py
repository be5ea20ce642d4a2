"""Tests, run by another pytest, of apps that leave a task behind; the line is marked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from quattro_web.testing import AppClient

pytestmark = pytest.mark.usefixtures("no_leaked_tasks")


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise ZeroDivisionError


async def passes(count: int) -> None:
    """Let a loop pass more often than a task has time to end in."""
    for _ in range(count):
        await asyncio.sleep(0)


async def leaky(request: Request) -> Response:
    request.app.state.task = asyncio.create_task(forever())  # left by leaky
    await asyncio.sleep(0)
    return PlainTextResponse("leaky")


async def leaky_socket(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.app.state.task = asyncio.create_task(forever())  # left by leaky_socket
    await websocket.close()


async def gathers(request: Request) -> Response:
    try:
        await asyncio.gather(fails(), forever())  # left by gathers
    except ZeroDivisionError:
        return PlainTextResponse("one is left")
    raise AssertionError


async def by_child(request: Request) -> Response:
    async def child() -> None:
        request.app.state.task = asyncio.create_task(forever())  # left by child

    async with asyncio.TaskGroup() as group:
        group.create_task(child())
    return PlainTextResponse("its child was leaky")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.poller = asyncio.ensure_future(forever())  # left by lifespan
    yield


def app(**options: Any) -> Starlette:
    routes = [
        Route("/leaky", leaky),
        Route("/gathers", gathers),
        Route("/by_child", by_child),
        WebSocketRoute("/socket", leaky_socket),
    ]
    return Starlette(routes=routes, **options)


def test_testclient__by_leaky() -> None:
    assert TestClient(app()).get("/leaky").text == "leaky"


def test_testclient_with_lifespan__by_leaky() -> None:
    with TestClient(app()) as client:
        assert client.get("/leaky").text == "leaky"


def test_testclient_websocket__by_leaky_socket() -> None:
    with TestClient(app()) as client, client.websocket_connect("/socket"):
        pass


def test_child_of_a_request__by_child() -> None:
    assert TestClient(app()).get("/by_child").text == "its child was leaky"


def test_one_of_two__by_gathers() -> None:
    assert TestClient(app()).get("/gathers").text == "one is left"


def test_lifespan__by_lifespan() -> None:
    with TestClient(app(lifespan=lifespan)):
        pass


def test_client__by_leaky() -> None:
    async def main() -> None:
        async with AppClient(app()) as client:
            assert (await client.get("/leaky")).text == "leaky"

    asyncio.run(main())


def test_ended_before_its_loop__by_leaky() -> None:
    """It is over when the test is: but not when the response is complete."""

    async def main() -> None:
        served = app()
        async with AppClient(served) as client:
            await client.get("/leaky")
            await passes(50)
            served.state.task.cancel()
            await asyncio.wait([served.state.task])

    asyncio.run(main())


def test_httpx__by_leaky() -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(app=app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/leaky")).text == "leaky"
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_plain_asgi__by_plain() -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            kept.append(asyncio.create_task(forever()))  # left by plain
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"plain"})

    async def main() -> None:
        async with AppClient(plain) as client:
            assert (await client.get("/")).text == "plain"

    kept: list[Any] = []
    asyncio.run(main())


def test_httpx_ended_before_its_loop__by_leaky() -> None:
    """The request was served in the task of the test, which goes on."""

    async def main() -> None:
        served = app()
        transport = httpx.ASGITransport(app=served)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/leaky")
        await passes(50)
        served.state.task.cancel()
        await asyncio.wait([served.state.task])

    asyncio.run(main())
