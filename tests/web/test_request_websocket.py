"""The group of a WebSocket spans the connection."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.exceptions import WebSocketException
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from quattro_web import install, request_task_group
from tests.support.asgi import Socket, run


def app_of(endpoint: Callable[[WebSocket], Awaitable[None]]) -> Starlette:
    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    return app


def test_children_are_awaited_before_the_close() -> None:
    """R6: Children are awaited, and background tasks cancelled, before the close frame."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        tg = request_task_group(websocket)

        async def child() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            log.append("child ended")

        async def pump() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("pump ended")

        tg.create_task(child())
        tg.create_background_task(pump())
        await asyncio.sleep(0)
        await websocket.close()

    run(Socket(app_of(endpoint), log=log).run())
    assert log == ["accept", "child ended", "pump ended", "close 1000"]


@pytest.mark.parametrize(
    ("error", "code"), [(ZeroDivisionError(), 1011), (WebSocketException(4000, "why"), 4000)]
)
def test_failure_closes_with_its_code(error: Exception, code: int) -> None:
    """R6: A child's failure closes with 1011, or with the code of its WebSocketException."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()

        async def child() -> None:
            raise error

        request_task_group(websocket).create_task(child())
        await websocket.receive_text()

    socket = run(Socket(app_of(endpoint)).run())
    assert socket.log[:2] == ["accept", f"close {code}"]
    assert (socket.error is error) is (code == 1011)


def test_client_that_left_cancels_pumps() -> None:
    """R6: A handler that ends since the client has left leaves no pump behind."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()

        async def pump() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("pump ended")

        request_task_group(websocket).create_background_task(pump())
        await asyncio.sleep(0)
        async for _ in websocket.iter_text():
            pass

    async def main() -> None:
        socket = Socket(app_of(endpoint), log=log)
        socket.say("hello")
        socket.leave()
        await socket.run()

    run(main())
    assert log == ["accept", "pump ended"]
