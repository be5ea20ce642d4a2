"""There is one reader of what the client sends, and it loses nothing."""

import asyncio
from functools import partial

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from quattro_web import (
    TaskGroupMiddleware,
)
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


def test_one_reader_in_all() -> None:
    """R7: While the app waits for a message, nobody else does (trap: second reader)."""
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
        assert await receive() == await receive() == {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert message.get("status") in (499, None)

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    run(TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send))
    assert most == 1


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
