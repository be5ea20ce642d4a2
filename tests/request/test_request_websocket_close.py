"""The close of a WebSocket: who is watched meanwhile, and what comes behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
    uninterrupted,
)
from quattro_web._util.scope import REQUEST
from quattro_web.fastapi import RequestTaskGroup
from tests.support.asgi import Socket, run


def like_granian(app: ASGIApp) -> ASGIApp:
    """A server that sends no close while a receive() is waiting."""
    lock = asyncio.Lock()

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_locked() -> Message:
            async with lock:
                return await receive()

        async def send_locked(message: Message) -> None:
            if message["type"] == "websocket.close":
                async with lock:
                    await send(message)
            else:
                await send(message)

        await app(scope, receive_locked, send_locked)

    return server


@pytest.mark.parametrize("closer", ["handler", "handler with a child", "child"])
def test_close_while_the_client_is_watched(closer: str) -> None:
    """R6, R7: The watch ends before a close is sent, which granian before 2.8.9 would not send."""
    log: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        async def child() -> None:
            if closer == "child":
                await asyncio.sleep(1)  # long enough to be watched
                await websocket.close(4000)

        await websocket.accept()
        if closer != "handler":
            task = request_task_group(websocket).create_task(child())
            await task
        if closer != "child":
            await asyncio.sleep(1)
            await websocket.close(4000)

    async def main() -> None:
        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        install(app, cancel_on_disconnect=True)
        await asyncio.wait_for(Socket(like_granian(app), log=log).run(), 10)

    run(main())
    assert log == ["accept", "close 4000"]


@pytest.mark.parametrize("again", [True, False])
def test_what_was_read_ahead_is_there_after_the_close(again: bool) -> None:
    """R7: What the watch had read ahead is not lost to a handler that closes before it reads, nor
    if it asks to be watched again."""
    received: list[Message] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(1)
        await websocket.close()
        if again:
            cancel_on_disconnect(websocket)
            await asyncio.sleep(0.5)
        received.extend([await websocket.receive(), await websocket.receive()])

    async def main() -> None:
        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        install(app, cancel_on_disconnect=True)
        socket = Socket(app)
        socket.say("hello")
        asyncio.get_running_loop().call_later(2, socket.leave, 4000)
        await socket.run()

    run(main())
    assert [message["type"] for message in received] == [
        "websocket.receive",
        "websocket.disconnect",
    ]


def test_handler_that_reads_on_after_the_close() -> None:
    """R7: When the watch has ended with the close, what the handler reads does not begin it again:
    no task is left of it."""
    received: list[Message] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(1)
        await websocket.close()
        received.append(await websocket.receive())

    async def main() -> None:
        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        install(app, cancel_on_disconnect=True)
        socket = Socket(app)
        asyncio.get_running_loop().call_later(2, socket.say, "late")
        await socket.run()

    run(main())
    assert received == [{"type": "websocket.receive", "text": "late"}]


def test_close_that_takes_too_long() -> None:
    """R6, R8: A handler that gives up its close, which waits for a child, and goes on is cancelled
    at its deadline as any other."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_deadline(scope, 5)
        request_task_group(scope).create_task(asyncio.sleep(60))
        await send({"type": "websocket.accept"})
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await send({"type": "websocket.close"})
        await asyncio.sleep(60)

    async def main() -> float:
        await Socket(TaskGroupMiddleware(app)).run()
        return asyncio.get_running_loop().time()

    assert run(main()) == 5


def test_dependency_that_closes_behind_the_close_at_a_shutdown() -> None:
    """A6, R6: The dependencies of a handler that has closed its WebSocket get their time to close,
    when the shutdown cuts what is open."""
    log: list[str] = []

    async def session(websocket: WebSocket) -> AsyncIterator[None]:
        yield
        end = websocket.scope[REQUEST].cut_off
        asyncio.get_running_loop().call_later(0.1, end, websocket)
        await asyncio.sleep(0.3)
        log.append("dependency closed")

    app = FastAPI()
    install(app)

    @app.websocket("/", dependencies=[Depends(session)])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        await websocket.close()

    run(Socket(app, log=log).run())
    assert log == ["accept", "close 1000", "dependency closed"]


def test_failure_after_a_websocket_handler_has_returned() -> None:
    """R4, R6: A dependency that closes with the function of a WebSocket sees what fails after that
    has returned as itself."""
    log: list[str] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as exc:
            log.append(type(exc).__name__)
            raise

    async def fails() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    app = FastAPI()
    install(app)

    @app.websocket("/", dependencies=[Depends(session, scope="function")])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(fails())

    run(Socket(app).run())
    assert log == ["ZeroDivisionError"]


def test_dependency_that_never_closes_behind_a_websocket_handler() -> None:
    """A6: The shutdown cuts a dependency that closes for too long after the handler of a WebSocket
    has returned."""

    async def session(websocket: WebSocket) -> AsyncIterator[None]:
        yield
        end = websocket.scope[REQUEST].cut_off
        asyncio.get_running_loop().call_later(1, end, websocket)
        await asyncio.sleep(3600)

    app = FastAPI()
    install(app)

    @app.websocket("/", dependencies=[Depends(session, scope="function")])
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()

    async def main() -> float:
        await Socket(app).run()
        return asyncio.get_running_loop().time()

    assert run(main()) < 60


@pytest.mark.parametrize("closes", [True, False])
def test_section_of_a_child_when_the_client_has_left(closes: bool) -> None:
    """R7: A section of a child that must not be cut goes on after its client has left, whether the
    handler of the WebSocket closes then or returns."""
    log: list[str] = []

    async def child(websocket: WebSocket) -> None:
        with uninterrupted(websocket):
            await asyncio.sleep(5)
            log.append("section ended")
        await asyncio.sleep(60)
        raise AssertionError

    app = FastAPI()
    install(app)

    @app.websocket("/")
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(child(websocket))
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()
        if closes:
            await websocket.close()

    async def main() -> float:
        socket = Socket(app)
        asyncio.get_running_loop().call_later(1, socket.leave)
        await socket.run()
        return asyncio.get_running_loop().time()

    assert run(main()) == 5
    assert log == ["section ended"]
