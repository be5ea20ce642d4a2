"""The group of a WebSocket spans the connection."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from quattro_web import install, request_task_group
from tests.support.asgi import Socket, run


def app_of(endpoint: Callable[[WebSocket], Awaitable[None]], **options: Any) -> Starlette:
    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app, **options)
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


def test_client_that_left_does_not_leave_children_waiting() -> None:
    """R6: Children are cancelled, not awaited, when the handler ends since its client has left."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()

        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("child ended")

        request_task_group(websocket).create_task(child())
        async for _ in websocket.iter_text():
            await asyncio.sleep(0)

    async def main() -> None:
        socket = Socket(app_of(endpoint), log=log)
        socket.say("hello")
        socket.leave()
        await socket.run()

    run(main())
    assert log == ["accept", "child ended"]


def test_child_that_reads_and_sees_the_client_leave() -> None:
    """R6: A child that is told of the client's leaving by its read ends the connection quietly."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        tg = request_task_group(websocket)

        async def read() -> None:
            while True:
                await websocket.send_text(await websocket.receive_text())

        async def write() -> None:
            try:
                while True:
                    await asyncio.sleep(1)
                    await websocket.send_text("tick")
            finally:
                log.append("writer ended")

        tg.create_task(read())
        tg.create_task(write())

    async def main() -> Socket:
        socket = Socket(app_of(endpoint), log=log)
        socket.say("hello")
        asyncio.get_running_loop().call_later(2.5, socket.leave)
        return await socket.run()

    assert run(main()).error is None
    assert log == ["accept", "send hello", "send tick", "send tick", "writer ended"]


def test_handler_that_only_sends_is_cancelled_where_asked() -> None:
    """R6, R7: A handler that never reads learns of the client's leaving by its cancellation."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(1)
        except asyncio.CancelledError as exc:
            log.append(str(exc))
            raise

    async def main() -> Socket:
        app = app_of(endpoint, cancel_on_disconnect=True)
        socket = Socket(app, log=log)
        asyncio.get_running_loop().call_later(1.5, socket.leave)
        return await socket.run()

    assert run(main()).error is None
    assert log == ["accept", "send tick", "send tick", "the client has disconnected"]


def test_denial_waits_for_the_children() -> None:
    """R6, R2: The response that denies a WebSocket completes after the children."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        async def child() -> None:
            await asyncio.sleep(1)
            log.append("child ended")

        request_task_group(websocket).create_task(child())
        await websocket.send_denial_response(PlainTextResponse("no", 403))

    run(Socket(app_of(endpoint), log=log).run())
    assert log == ["child ended", "start 403", "body no"]


def test_failure_before_the_accept_is_answered_with_a_denial() -> None:
    """R6, R4: A child that fails before the WebSocket is accepted denies it with its status."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        async def child() -> None:
            raise HTTPException(403, "no")

        request_task_group(websocket).create_task(child())
        await asyncio.sleep(1)

    run(Socket(app_of(endpoint), log=log).run())
    assert log == ["start 403", "body no"]
