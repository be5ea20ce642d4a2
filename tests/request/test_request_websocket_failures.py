"""What a WebSocket's client is told of a failure, and that the failure is not lost on the way."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketState

from quattro_web import TaskGroupMiddleware, install, request_task_group, set_deadline
from quattro_web.fastapi import RequestTaskGroup
from tests.support.asgi import Socket, run

Endpoint = Callable[[WebSocket], Awaitable[None]]


def connect(endpoint: Endpoint, **options: Any) -> Socket:
    app = Starlette(routes=[WebSocketRoute("/", endpoint)], **options)
    install(app)
    return run(Socket(app).run())


async def fail(exc: Exception) -> None:
    await asyncio.sleep(1)
    raise exc


async def explain(websocket: WebSocket, _: Exception) -> None:
    """Be an exception handler that has something to say."""
    await websocket.send_text("sorry")
    await websocket.close(4001)


def test_child_fails_while_the_handler_closes() -> None:
    """R6, R4: The close that waits for the children has not been sent: a child that fails meanwhile
    closes with its own code, or as the app's exception handler does."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(fail(errors.pop()))
        await websocket.close()

    errors: list[Exception] = [ZeroDivisionError(), WebSocketException(1008)]
    socket = connect(endpoint)
    assert (socket.log, socket.error) == (["accept", "close 1008"], None)
    socket = connect(endpoint, exception_handlers={ZeroDivisionError: explain})
    assert (socket.log, socket.error) == (["accept", "send sorry", "close 4001"], None)


def test_exception_handler_may_send_whoever_has_asked_for_the_group() -> None:
    """R6, R4: So it is where the group was asked for with something else than the WebSocket."""
    app = FastAPI()
    app.add_exception_handler(ZeroDivisionError, explain)
    install(app)

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(fail(ZeroDivisionError()))
        await websocket.receive_text()

    socket = run(Socket(app).run())
    assert (socket.log, socket.error) == (["accept", "send sorry", "close 4001"], None)


@pytest.mark.parametrize("what", ["scope", "websocket"])
def test_exception_handler_may_read(what: str) -> None:
    """R6, R4: The exception handler hears what the client says."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        asked_with = websocket.scope if what == "scope" else websocket
        request_task_group(asked_with).create_task(fail(ZeroDivisionError()))
        await asyncio.Event().wait()

    async def ask(websocket: WebSocket, _: Exception) -> None:
        await websocket.send_text(await websocket.receive_text())
        await websocket.close(4001)

    app = Starlette(
        routes=[WebSocketRoute("/", endpoint)], exception_handlers={ZeroDivisionError: ask}
    )
    install(app)

    async def main() -> Socket:
        socket = Socket(app)
        socket.say("why?")
        return await socket.run()

    assert run(main()).log == ["accept", "send why?", "close 4001"]


def test_exception_handler_that_fails() -> None:
    """R6, C5: When the exception handler fails in its turn, the client gets a 1011, and the log
    both errors."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(fail(ZeroDivisionError()))
        await websocket.receive_text()

    async def break_down(_: WebSocket, exc: Exception) -> None:
        raise KeyError

    socket = connect(endpoint, exception_handlers={ZeroDivisionError: break_down})
    assert socket.log == ["accept", "close 1011", "raised KeyError"]
    assert socket.error is not None
    assert isinstance(socket.error.__context__, ZeroDivisionError)


def test_close_that_fails_does_not_hide_the_failure() -> None:
    """R6, C5: A child's error is in the log, though the server can't send the close any more."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        request_task_group(scope).create_task(fail(ZeroDivisionError()))
        await asyncio.Event().wait()

    class Gone(Socket):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "websocket.close":
                raise ConnectionResetError

    socket = run(Gone(TaskGroupMiddleware(app)).run())
    assert socket.log == ["accept", "close 1011", "raised ConnectionResetError"]
    assert socket.error is not None
    assert isinstance(socket.error.__context__, ZeroDivisionError)


def denies(response: Callable[[], Response], error: Exception) -> Endpoint:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.receive()
        request_task_group(websocket.scope).create_task(fail(error))
        await websocket.send_denial_response(response())

    return endpoint


def test_child_fails_while_the_handler_denies() -> None:
    """R6, R2: Of the denial that waits for the children nothing has left: a child that fails
    meanwhile says how the WebSocket is refused."""

    def deny() -> Response:
        return PlainTextResponse("never seen", 403)

    socket = connect(denies(deny, WebSocketException(1008)))
    assert (socket.log, socket.error) == (["close 1008"], None)
    error = ZeroDivisionError()
    socket = connect(denies(deny, error))
    assert (socket.log, socket.error) == (["raised ZeroDivisionError"], error)


def test_denial_by_an_exception_handler() -> None:
    """R6, R4: Before the WebSocket is accepted, the app's exception handler may answer the failure
    of a child with a response."""

    async def endpoint(websocket: WebSocket) -> None:
        request_task_group(websocket).create_task(fail(ZeroDivisionError()))
        await asyncio.sleep(60)

    async def deny(websocket: WebSocket, exc: Exception) -> Response:
        return PlainTextResponse("sorry", 418)

    socket = connect(endpoint, exception_handlers={ZeroDivisionError: deny})
    assert (socket.log, socket.error) == (["start 418", "body sorry"], None)


def test_exception_handler_denies_what_the_handler_has_refused() -> None:
    """R6, R4: A refusal that waits for the children has not left: the app's exception handler may
    send a response in place of it when one of them fails."""

    async def endpoint(websocket: WebSocket) -> None:
        request_task_group(websocket).create_task(fail(ZeroDivisionError()))
        await websocket.close()

    async def deny(websocket: WebSocket, exc: Exception) -> None:
        await websocket.send_denial_response(PlainTextResponse("sorry", 418))

    socket = connect(endpoint, exception_handlers={ZeroDivisionError: deny})
    assert (socket.log, socket.error) == (["start 418", "body sorry"], None)


MESSAGES: dict[str, Message] = {
    "accept": {"type": "websocket.accept"},
    "deny": {"type": "websocket.http.response.start", "status": 403, "headers": []},
    "send": {"type": "websocket.send", "text": "more"},
    "close": {"type": "websocket.close", "code": 4000},
}


@pytest.mark.parametrize("what", list(MESSAGES))
def test_websocket_that_goes_on_after_its_deadline(what: str) -> None:
    """R6, R8: Nothing leaves that the handler of a WebSocket sends when it was cancelled for its
    deadline, and goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_deadline(scope, 1)
        if what in ("send", "close"):
            await send(MESSAGES["accept"])
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await send(MESSAGES[what])
        raise AssertionError

    socket = run(Socket(TaskGroupMiddleware(app)).run())
    if what in ("send", "close"):
        assert socket.log == ["accept", "close 1011"]
    else:
        assert socket.log == ["start 504", "body Gateway Timeout"]


def test_websocket_whose_deadline_passes_while_it_closes() -> None:
    """R6, R8: The close that waits for the children is not sent when the deadline has cancelled
    them: the client gets a 1011."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_deadline(scope, 1)
        await send(MESSAGES["accept"])
        request_task_group(scope).create_task(asyncio.sleep(60))
        await send(MESSAGES["close"])

    assert run(Socket(TaskGroupMiddleware(app)).run()).log == ["accept", "close 1011"]


def test_denial_that_has_begun_is_cut() -> None:
    """R6, R5: A denial that has begun is cut by a failure; a close can't follow it."""

    class Pieces(Response):  # StreamingResponse is none for WebSockets in older Starlettes
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            kind = "websocket.http.response"
            await send({"type": f"{kind}.start", "status": 403, "headers": []})
            await send({"type": f"{kind}.body", "body": b"one", "more_body": True})
            await asyncio.sleep(3600)

    error = ZeroDivisionError()
    socket = connect(denies(Pieces, error))
    assert socket.log == ["start 403", "chunk one", "raised ZeroDivisionError"]
    assert socket.error is error


def test_several_children_hear_of_the_client() -> None:
    """R6: Several children that learn by errors that the client has left are no failure."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        told = asyncio.Event()

        async def read() -> None:
            try:
                await websocket.receive_text()
            finally:
                told.set()

        async def write() -> None:
            await told.wait()
            raise WebSocketDisconnect(1006)

        tg = request_task_group(websocket)
        tg.create_task(write())
        tg.create_task(read())
        await asyncio.Event().wait()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)

    async def main() -> Socket:
        socket = Socket(app)
        socket.leave()
        return await socket.run()

    socket = run(main())
    assert (socket.log, socket.error) == (["accept"], None)


def test_client_of_another_websocket_that_has_left() -> None:
    """R6: A child that learns by sending to the WebSocket of another client that this one has left
    fails, as where clients talk to each other: that is logged, and closes with 1011."""

    class Broken(Socket):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "websocket.send":
                raise OSError

    others: list[WebSocket] = []
    done = asyncio.Event()

    async def listens(websocket: WebSocket) -> None:
        await websocket.accept()
        others.append(websocket)
        await done.wait()

    async def talks(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(others[0].send_text("hello"))
        await asyncio.Event().wait()

    app = Starlette(routes=[WebSocketRoute("/listens", listens), WebSocketRoute("/talks", talks)])
    install(app)

    async def main() -> Socket:
        listening = asyncio.create_task(Broken(app, "/listens").run())
        await asyncio.sleep(1)
        socket = await Socket(app, "/talks").run()
        done.set()
        await listening
        return socket

    socket = run(main())
    assert socket.log == ["accept", "close 1011", "raised WebSocketDisconnect"]


def test_own_client_that_has_left_is_no_failure_of_a_child_that_sends() -> None:
    """R6: A child that learns so by sending to its own client has not failed."""

    class Broken(Socket):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "websocket.send":
                raise OSError

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket).create_task(websocket.send_text("hello"))
        await asyncio.Event().wait()

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    socket = run(Broken(app).run())
    assert (socket.log, socket.error) == (["accept", "send hello"], None)


@pytest.mark.parametrize("is_installed", [True, False])
@pytest.mark.parametrize("how", ["child", "handler"])
def test_http_error_in_a_mounted_app(how: str, is_installed: bool) -> None:
    """R6: An HTTPException of a WebSocket that was accepted closes it with 1011 in a mounted app,
    too: the app around it has an exception handler that would send a status. So it is if the
    mounted app has the middleware as well."""
    app, inner = FastAPI(), FastAPI()
    app.mount("/inner", inner)
    if is_installed:
        install(inner)

    @inner.websocket("/")
    async def handler(websocket: WebSocket, tg: RequestTaskGroup) -> None:
        await websocket.accept()
        tg.create_task(fail(HTTPException(404)))
        if how == "handler":
            raise HTTPException(404)
        await asyncio.Event().wait()

    install(app)
    socket = run(Socket(app, "/inner/").run())
    assert socket.log == ["accept", "close 1011", "raised HTTPException"]


def test_child_that_refuses_and_fails() -> None:
    """R6: A WebSocket that a child has refused is not refused again when the child fails."""

    async def endpoint(websocket: WebSocket) -> None:
        async def refuse() -> None:
            await websocket.close()
            raise HTTPException(403)

        request_task_group(websocket).create_task(refuse())

    assert connect(endpoint).log == ["close 1000", "raised HTTPException"]


def test_child_that_closes_and_fails() -> None:
    """R6: Nor is an exception handler asked to close one that a child has closed."""

    async def endpoint(websocket: WebSocket) -> None:
        async def close() -> None:
            await websocket.close(4000)
            raise ZeroDivisionError

        await websocket.accept()
        request_task_group(websocket).create_task(close())

    async def never(_: WebSocket, exc: Exception) -> None:
        raise AssertionError from exc

    socket = connect(endpoint, exception_handlers={ZeroDivisionError: never})
    assert socket.log == ["accept", "close 4000", "raised ZeroDivisionError"]


def test_failure_when_the_client_has_left() -> None:
    """R6: Nothing is sent to a client that has left, of a failure that follows."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket)
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        raise ZeroDivisionError

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)

    async def main() -> Socket:
        socket = Socket(app)
        socket.leave()
        return await socket.run()

    assert run(main()).log == ["accept", "raised ZeroDivisionError"]


def test_client_that_left_while_the_handler_sent() -> None:
    """R6: So it is when the handler lets out that its client has left, which `send` has told."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket)
        await websocket.send_text("hello")

    class Gone(Socket):
        async def send(self, message: Message) -> None:
            if message["type"] == "websocket.send":
                raise ConnectionResetError
            await super().send(message)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    assert run(Gone(app).run()).log == ["accept", "raised WebSocketDisconnect"]


def test_exception_handler_below_the_middlewares_of_a_route() -> None:
    """R10: What an exception handler answers, the middlewares of the route don't see, as without
    this package."""
    seen: list[BaseException] = []

    class Watching:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.app(scope, receive, send)
            except BaseException as exc:
                seen.append(exc)
                raise

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        request_task_group(websocket)
        raise ZeroDivisionError

    route = WebSocketRoute("/", endpoint, middleware=[Middleware(Watching)])
    app = Starlette(routes=[route], exception_handlers={ZeroDivisionError: explain})
    install(app)
    assert run(Socket(app).run()).log == ["accept", "send sorry", "close 4001"]
    assert seen == []


def test_websocket_of_nobody_whose_client_has_left() -> None:
    """R6: So is what a child's own WebSocket says, of which no server knows."""

    async def left() -> Message:
        return {"type": "websocket.disconnect", "code": 1001}

    async def nothing(_: Message) -> None:
        raise AssertionError

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        other = WebSocket({"type": "websocket"}, left, nothing)
        other.client_state = WebSocketState.CONNECTED
        other.application_state = WebSocketState.CONNECTED
        request_task_group(websocket).create_task(other.receive_text())
        await asyncio.Event().wait()

    socket = connect(endpoint)
    assert socket.log == ["accept", "close 1011", "raised WebSocketDisconnect"]
