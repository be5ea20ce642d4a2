"""There is one reader of what the client sends, and it loses nothing."""

import asyncio
import logging
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web import (
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
)
from tests.request.failing import Teapot, fail
from tests.request.watched import app_of, hang
from tests.support.asgi import Exchange, run


def test_body_is_neither_lost_nor_reordered() -> None:
    """R7: A body that is streamed while the client is watched arrives whole, in order."""

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(1)  # watched by now, before the first piece was read
        pieces = []
        async for piece in request.stream():
            pieces.append(piece)
            await asyncio.sleep(1)
        return PlainTextResponse(b"|".join(pieces))

    async def main() -> Exchange:
        exchange = Exchange(app_of(endpoint), method="POST", body=[b"0"], unfinished=True)
        for number in range(1, 6):
            upload = partial(exchange.upload, b"%d" % number, more=number < 5)
            asyncio.get_running_loop().call_later(number / 2, upload)
        return await exchange.run()

    assert run(main()).body == b"0|1|2|3|4|5|"


def test_piece_that_comes_while_the_app_waits() -> None:
    """R7: An app that waits for the body gets each piece when it comes, also if it is watched."""
    times: list[float] = []

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(1)  # watched by now
        async for _ in request.stream():
            times.append(asyncio.get_running_loop().time())
        return Response()

    async def main() -> Exchange:
        exchange = Exchange(app_of(endpoint), method="POST", body=[], unfinished=True)
        for number in (2, 3, 4):
            upload = partial(exchange.upload, b"piece", more=number < 4)
            asyncio.get_running_loop().call_later(number, upload)
        return await exchange.run()

    assert run(main()).status == 200
    assert times[:3] == [2, 3, 4]


@pytest.mark.parametrize(("size", "ahead"), [(65536, 1), (32768, 2), (10, 64)])
def test_reading_ahead_is_bounded(size: int, ahead: int) -> None:
    """R7: No more than 64 KiB is read ahead of an app that does not read."""
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x" * size, "more_body": True}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(5)
        assert read == ahead
        await receive()
        await asyncio.sleep(5)
        assert read == ahead + 1

    async def send(message: Message) -> None:
        assert message.get("status") in (499, None)

    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    run(TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send))


@pytest.mark.parametrize("said", [{"text": "x" * 65536}, {"bytes": b"x" * 65536}])
def test_reading_ahead_of_a_websocket_is_bounded(said: Message) -> None:
    """R7: So it is with the messages of a WebSocket."""
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 1
        await asyncio.sleep(0)
        return {"type": "websocket.receive", **said}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(5)
        assert read == 1

    async def send(message: Message) -> None:
        raise AssertionError

    scope: Scope = {"type": "websocket", "path": "/", "headers": []}
    run(TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send))


def test_client_that_leaves_after_a_large_body() -> None:
    """R7: When all of a body has come, its size does not hide that the client leaves."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hang(log, "handler")

    body: list[Message] = [{"type": "http.request", "body": b"x" * 70000, "more_body": False}]
    run(serve(TaskGroupMiddleware(app, cancel_on_disconnect=True), body))
    assert log == ["handler cancelled after 0.55 s: the client has disconnected"]


def test_nothing_is_read_before_100_continue() -> None:
    """R7: With ``Expect: 100-continue`` nothing is read before the app does: reading sends it."""
    log: list[str] = []

    async def receive() -> Message:
        log.append("read")
        return {"type": "http.request", "body": b"", "more_body": False}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(5)
        log.append("app reads")
        await receive()

    async def send(message: Message) -> None:
        assert message.get("status") in (499, None)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"expect", b"100-continue")],
    }
    run(TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send))
    assert log == ["app reads", "read"]


@pytest.mark.parametrize("pause", [0, 1])
def test_one_reader_in_all(pause: float) -> None:
    """R7: While the app waits for a message, nobody else does, whether it is watched already or
    not, and however often that is asked for (trap: second reader)."""
    readers = most = 0
    released = asyncio.Event()

    async def receive() -> Message:
        nonlocal readers, most
        readers += 1
        most = max(most, readers)
        await released.wait()
        readers -= 1
        return {"type": "http.disconnect"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_later(5, released.set)
        for _ in range(2):
            cancel_on_disconnect(scope)
            await asyncio.sleep(pause)
        assert await receive() == await receive() == {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert message.get("status") in (499, None)

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    run(TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send))
    assert most == 1


def test_receive_that_fails_while_the_client_is_watched(errors: list[logging.LogRecord]) -> None:
    """R7: An error of the server's receive() is logged, and an app that reads asks it anew."""
    answers: list[Message] = [{"type": "http.request", "body": b"hello"}]

    async def receive() -> Message:
        if asyncio.get_running_loop().time() < 1:
            raise ZeroDivisionError
        return answers.pop()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        assert (await receive())["body"] == b"hello"

    async def send(message: Message) -> None:
        raise AssertionError

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    run(TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send))
    assert answers == []
    assert [record.exc_info and record.exc_info[0] for record in errors][:1] == [ZeroDivisionError]


def test_disconnect_is_remembered_for_ever() -> None:
    """R7: The server is asked once, and the app is told as often as it asks (trap: second receive()
    after a disconnect)."""
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.disconnect"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            assert (await receive())["type"] == "http.disconnect"

    async def send(message: Message) -> None:
        raise AssertionError

    run(TaskGroupMiddleware(app)({"type": "http", "method": "GET"}, receive, send))
    assert asked == 1


def test_receive_that_is_no_coroutine() -> None:
    """R7: The server's receive() may return any awaitable, as granian's (trap: create_task)."""

    def receive() -> "asyncio.Future[Message]":
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, future.set_result, {"type": "http.disconnect"})
        return future

    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hang(log, "handler")

    async def send(message: Message) -> None:
        assert message.get("status") in (499, None)

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    run(TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send))
    assert len(log) == 1


async def serve(app: ASGIApp, messages: list[Message], **scope: Any) -> list[Message]:
    """Serve a request whose client sends some messages, and leaves half a second later."""
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await asyncio.sleep(0.5)
            return {"type": "http.disconnect"}
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    http = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    await app({**http, **scope}, receive, send)
    return sent


def test_client_that_leaves_after_100_continue() -> None:
    """R7: Where the app has read already, and the client has been told to send its body, reading
    goes on ahead of it: the client's leaving is known."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await hang(log, "handler")

    watching = TaskGroupMiddleware(app, cancel_on_disconnect=True)
    body: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
    run(serve(watching, body, headers=[(b"expect", b"100-continue")]))
    assert log == ["handler cancelled after 0.55 s: the client has disconnected"]


PIECES: list[Message] = [
    {"type": "http.request", "body": b"he", "more_body": True},
    {"type": "http.request", "body": b"llo", "more_body": False},
]
WHOLE: list[Message] = [{"type": "http.request", "body": b"hello"}]


@pytest.mark.parametrize("messages", [PIECES, WHOLE])
@pytest.mark.parametrize("deadline", [1, None])
@pytest.mark.parametrize("reads", [True, False])
def test_what_an_exception_handler_reads(
    reads: bool, deadline: float | None, messages: list[Message]
) -> None:
    """R4: An exception handler reads the body that nobody has read, or that was kept for it, which
    is so in a request with a deadline; else an empty one. What comes then is that the client has
    left."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        if reads:
            await request.body()
        request_task_group(request.scope).create_task(fail(Teapot()))
        return await asyncio.sleep(60, Response())

    async def handler(request: Request, exc: Exception) -> Response:
        log.append((await request.body()).decode())
        log.append((await request.receive())["type"])
        return Response(status_code=418)

    route = Route("/", endpoint, methods=["POST"])
    app = Starlette(routes=[route], exception_handlers={Teapot: handler})
    install(app, deadline=deadline)
    start, _ = run(serve(app, list(messages)))
    assert start["status"] == 418
    assert log == ["" if reads and deadline is None else "hello", "http.disconnect"]
