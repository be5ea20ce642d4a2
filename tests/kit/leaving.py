"""Tests, run by another pytest, that leave a task behind: each line that does so is marked."""

import asyncio
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvloop
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


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.poller = asyncio.ensure_future(forever())  # left by lifespan
    yield


def app(**options: Any) -> Starlette:
    routes = [
        Route("/leaky", leaky),
        Route("/gathers", gathers),
        WebSocketRoute("/socket", leaky_socket),
    ]
    return Starlette(routes=routes, **options)


def test_run__by_test() -> None:
    async def main() -> None:
        asyncio.create_task(forever())  # left by test
        await asyncio.sleep(0)

    asyncio.run(main())


def test_never_started__by_test() -> None:
    async def main() -> None:
        asyncio.create_task(forever())  # left by test

    asyncio.run(main())


def test_uvloop__by_test() -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_task(forever())  # left by test
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_closed_loop__by_test() -> None:
    async def main() -> None:
        kept.append(asyncio.create_task(forever()))  # left by test
        await asyncio.sleep(0)

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    kept[0]._log_destroy_pending = False


@pytest.mark.asyncio
async def test_pytest_asyncio__by_test() -> None:
    asyncio.create_task(forever())  # left by test
    await asyncio.sleep(0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_anyio__by_test() -> None:
    asyncio.create_task(forever())  # left by test
    await asyncio.sleep(0)


def test_testclient__by_leaky() -> None:
    assert TestClient(app()).get("/leaky").text == "leaky"


def test_testclient_with_lifespan__by_leaky() -> None:
    with TestClient(app()) as client:
        assert client.get("/leaky").text == "leaky"


def test_testclient_websocket__by_leaky_socket() -> None:
    with TestClient(app()) as client, client.websocket_connect("/socket"):
        pass


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
            await asyncio.sleep(0.01)
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


def test_callback__by_test() -> None:
    async def main() -> None:
        later = lambda: kept.append(asyncio.create_task(forever()))  # noqa: E731  # left by test
        asyncio.get_running_loop().call_soon(later)
        await asyncio.sleep(0)

    kept: list[Any] = []
    asyncio.run(main())


def test_child_of_a_left_one__by_test() -> None:
    """The one that is left is named, and not those that it waits for."""

    async def parent() -> None:
        await asyncio.gather(forever(), forever())

    async def main() -> None:
        asyncio.create_task(parent())  # left by test
        await asyncio.sleep(0.01)

    asyncio.run(main())


if hasattr(asyncio, "eager_task_factory"):  # pragma: no branch

    def test_eager__by_test() -> None:
        async def main() -> None:
            factory: Any = getattr(asyncio, "eager_task_factory")  # noqa: B009  # not before 3.12
            asyncio.get_running_loop().set_task_factory(factory)
            asyncio.create_task(forever())  # left by test

        asyncio.run(main())


def test_two_of_them__by_test() -> None:
    @types.coroutine
    def bare() -> Any:
        yield from asyncio.Event().wait().__await__()

    async def old() -> None:
        await bare()

    async def main() -> None:
        asyncio.create_task(forever())  # left by test
        asyncio.create_task(old(), name="old one")
        await asyncio.sleep(0)

    asyncio.run(main())
