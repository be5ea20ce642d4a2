"""How a WebSocket ends when a child, or the handler, or the client ends it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from quattro_web import install, request_task_group
from tests.support.asgi import Socket, run


def app_of(endpoint: Callable[[WebSocket], Awaitable[None]], **options: Any) -> Starlette:
    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app, **options)
    return app


def test_exception_handler_of_the_app_closes() -> None:
    """R6, R4: The app's exception handler may close the WebSocket with a code of its own."""

    async def handler(websocket: WebSocket, exc: Exception) -> None:
        await websocket.close(4001, "handled")

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()

        async def child() -> None:
            raise ZeroDivisionError

        request_task_group(websocket).create_task(child())
        await websocket.receive_text()

    app = app_of(endpoint)
    app.add_exception_handler(ZeroDivisionError, handler)
    socket = run(Socket(app).run())
    assert socket.log == ["accept", "close 4001"]
    assert socket.error is None


@pytest.mark.parametrize("kind", ["create_task", "create_background_task"])
def test_child_closes(kind: str) -> None:
    """R6: A child may close the WebSocket, with its own code; the handler sees what follows."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()

        async def child() -> None:
            await websocket.send_text("the last one")
            await websocket.close(1012)

        getattr(request_task_group(websocket), kind)(child())
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass

    async def main() -> Socket:
        socket = Socket(app_of(endpoint))
        asyncio.get_running_loop().call_later(1, socket.leave)
        return await socket.run()

    socket = run(main())
    assert socket.log == ["accept", "send the last one", "close 1012"]
    assert socket.error is None


@pytest.mark.parametrize("asks", [True, False])
def test_error_after_the_close_is_not_lost(asks: bool) -> None:
    """R6, R10: A bug of the handler after its own close leaves the app, with a group or without."""
    error = ZeroDivisionError()

    async def endpoint(websocket: WebSocket) -> None:
        if asks:
            request_task_group(websocket)
        await websocket.accept()
        await websocket.close(1003)
        raise error

    socket = run(Socket(app_of(endpoint)).run())
    assert socket.log == ["accept", "close 1003", "raised ZeroDivisionError"]
    assert socket.error is error


@pytest.mark.parametrize("asks", [True, False])
def test_disconnect_that_the_handler_lets_out(asks: bool) -> None:
    """R10: A WebSocketDisconnect that the handler lets out leaves the app, as without a group."""

    async def endpoint(websocket: WebSocket) -> None:
        if asks:
            request_task_group(websocket)
        await websocket.accept()
        await websocket.receive_text()

    async def main() -> Socket:
        socket = Socket(app_of(endpoint))
        socket.leave()
        return await socket.run()

    assert run(main()).log == ["accept", "raised WebSocketDisconnect"]


def test_close_when_the_client_has_left_waits_for_nobody() -> None:
    """R6: A handler that closes when its client has left, as in a ``finally``, cancels its children
    instead of waiting for them."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(asyncio.Event().wait())
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()
        await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)

    async def main() -> None:
        socket = Socket(app)
        socket.leave()
        async with asyncio.timeout(60):
            await socket.run()
        assert socket.error is None

    run(main())


def test_client_that_leaves_after_a_child_has_closed() -> None:
    """R6: The children of a WebSocket that one of them has closed are cancelled as well, and not
    awaited, when its handler ends since the client has left."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        tg = request_task_group(websocket)
        tg.create_task(websocket.close(4000))
        tg.create_task(asyncio.Event().wait())
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()

    async def main() -> float:
        socket = Socket(app)
        asyncio.get_running_loop().call_later(1, socket.leave)
        await socket.run()
        assert (socket.log, socket.error) == (["accept", "close 4000"], None)
        return asyncio.get_running_loop().time()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    assert run(main()) == 1
