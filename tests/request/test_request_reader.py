"""What was read ahead of the app, and what is left of the reading."""

import asyncio
import gc
import weakref

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from quattro_web import install, request_task_group, uninterrupted
from tests.support.asgi import Exchange, Socket, run


def test_body_of_a_client_that_has_left() -> None:
    """R7: The end of a body that was read ahead is not lost when its client leaves after it."""
    bodies: list[bytes] = []

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            await asyncio.sleep(1)  # all of it is read ahead by now, and the client has left
            bodies.append(await request.body())
        await asyncio.sleep(1)
        raise AssertionError

    async def main() -> Exchange:
        app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
        install(app, cancel_on_disconnect=True)
        exchange = Exchange(app, method="POST", body=[b"order"])
        return await exchange.disconnect_after(0.5).run()

    assert run(main()).error is None
    assert bodies == [b"order"]


class Receiving:
    """A server's receive() whose life can be watched."""

    def __init__(self, inbox: asyncio.Queue[Message]) -> None:
        self.inbox = inbox

    async def __call__(self) -> Message:
        return await self.inbox.get()


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_watch_leaves_no_cycle(kind: str) -> None:
    """R6, R7: Nothing refers to the server's receive() after a watched request.

    granian closes a WebSocket whose handler has returned when nothing refers to it any more.
    """

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(1)
        return PlainTextResponse()

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(1)

    async def main() -> None:
        app = Starlette(routes=[Route("/", endpoint), WebSocketRoute("/", socket)])
        install(app, cancel_on_disconnect=True)
        client: Exchange | Socket = Exchange(app) if kind == "http" else Socket(app)
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        first = {"http": "http.request", "websocket": "websocket.connect"}
        inbox.put_nowait({"type": first[kind], "body": b"", "more_body": False})
        receive = Receiving(inbox)
        alive = weakref.ref(receive)
        gc.disable()
        try:
            await app(client.scope, receive, client.send)
            del receive
            assert alive() is None
        finally:
            gc.enable()

    run(main())


@pytest.mark.parametrize("is_watched", [True, False])
def test_handler_that_reads_until_its_client_leaves(is_watched: bool) -> None:
    """R7: What a watched handler's own read is told of the leaving is no failure for the log."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket)
        while True:
            await websocket.receive_text()

    async def main() -> Socket:
        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        install(app, cancel_on_disconnect=is_watched)
        socket = Socket(app)
        asyncio.get_running_loop().call_later(1, socket.leave)
        return await socket.run()

    assert isinstance(run(main()).error, WebSocketDisconnect) is not is_watched
