"""How responses end that are streams, or are sent by children, or never come."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    TaskGroupMiddleware,
    install,
    request_task_group,
)
from tests.support.asgi import Exchange, Socket, get, run


async def feed(queue: "asyncio.Queue[str | None]") -> None:
    for number in range(5):
        await queue.put(str(number))
    await queue.put(None)


def stream_app(kind: str, headers: dict[str, str]) -> Starlette:
    async def endpoint(request: Request) -> Response:
        queue: asyncio.Queue[str | None] = asyncio.Queue(1)
        getattr(request_task_group(request), kind)(feed(queue))

        async def chunks() -> AsyncIterator[str]:
            while (item := await queue.get()) is not None:
                yield item

        return StreamingResponse(chunks(), headers=headers)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    return app


@pytest.mark.parametrize("kind", ["create_task", "create_background_task"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [{}, {"content-length": "5"}])
def test_stream_whose_end_is_announced(kind: str, method: str, headers: dict[str, str]) -> None:
    """R2, R10: HEAD on a stream, and one with Content-Length, end although their producer goes on
    after the byte that is the last one for the client."""
    exchange = run(get(stream_app(kind, headers), method=method))
    assert exchange.is_complete
    assert exchange.body == (b"01234" if method == "GET" else exchange.body)


def test_pieces_of_a_body_that_is_none_are_not_kept() -> None:
    """R2, R10: Of a body that the client does not get, one empty piece is held back for the
    children, however many there are."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(asyncio.sleep(1))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"a piece", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    run(get(TaskGroupMiddleware(app), method="HEAD", log=log))
    assert log == ["start 200", "chunk ", "body"]


def test_pieces_that_are_not_kept_let_children_run() -> None:
    """R2: A stream whose pieces go nowhere, since the client gets no body, does not starve the
    children that are to end it."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        child = request_task_group(request).create_task(asyncio.sleep(0))

        async def chunks() -> AsyncIterator[str]:
            for _ in range(100):
                if child.done():
                    log.append("child ended")
                    return
                yield "a piece"

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    run(get(app, method="HEAD", log=log))
    assert log == ["child ended", "start 200", "chunk ", "body"]


def test_last_piece_that_was_announced_waits() -> None:
    """R2: Of a body with a Content-Length, in several pieces, the last one waits for the children,
    also if the app reads meanwhile: the client has the whole response with it."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            await asyncio.sleep(1)
            log.append("child")

        request_task_group(scope).create_task(child())
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await send({"type": "http.response.body", "body": b"k", "more_body": True})
        await receive()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["start 200", "chunk o", "child", "chunk k", "body"]


def test_more_than_was_announced_reaches_the_server() -> None:
    """R2, R10: What a body has more than its Content-Length is held back with the last byte of
    that, and the server, which complains about it, gets all."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(asyncio.sleep(1))
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for body in (b"ok", b"", b"more"):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["start 200", "chunk ok", "chunk more", "body"]


def test_stream_whose_client_has_left() -> None:
    """R2: A stream that nobody reads any more ends, and cancels its foreground producer."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        queue: asyncio.Queue[str] = asyncio.Queue(1)

        async def produce() -> None:
            try:
                while True:
                    await queue.put("x")
            finally:
                log.append("producer ended")

        async def chunks() -> AsyncIterator[str]:
            while True:
                yield await queue.get()
                await asyncio.sleep(1)

        request_task_group(request).create_task(produce())
        return StreamingResponse(chunks())

    async def main() -> None:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app)
        await Exchange(app).disconnect_after(2.5).run()

    run(main())
    assert log == ["producer ended"]


def test_child_that_sends_a_body_in_pieces() -> None:
    """R2: Of a response that a child sends, no piece is lost, also past its Content-Length."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            headers = [(b"content-length", b"5")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"hello", "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        request_task_group(scope).create_task(respond())

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["start 200", "chunk hello", "body"]


@pytest.mark.parametrize("end", ["outer", "group"])
def test_start_that_was_held_never_comes_late(end: str) -> None:
    """R2, R4: A start that was held back does not leave after the request has ended without it."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tg = request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if end == "group":
            tg.cancel()
        await asyncio.Event().wait()

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await get(TaskGroupMiddleware(app), log=log)
        await asyncio.sleep(1)

    run(main())
    assert "start 200" not in log


@pytest.mark.parametrize(
    ("body", "again"),
    [
        ([b"he", b"llo"], b"hello"),
        ([b"x" * 65536], b"x" * 65536),
        ([b"x" * 65536, b"x"], b""),
    ],
)
def test_deadline_is_answered_by_a_handler_that_reads_the_body(
    body: list[bytes], again: bytes
) -> None:
    """R8: An exception handler that reads the body gets it again, and does not wait for more. One
    of more than 64 KiB is not kept for that, and is empty."""

    async def handler(request: Request, exc: Exception) -> Response:
        return PlainTextResponse(await request.body(), 504)

    async def endpoint(request: Request) -> Response:
        await request.body()
        await asyncio.sleep(60)
        raise AssertionError

    app = Starlette(
        routes=[Route("/", endpoint, methods=["POST"])], exception_handlers={504: handler}
    )
    install(app, deadline=5)
    exchange = run(get(app, method="POST", body=body))
    assert (exchange.status, exchange.body) == (504, again)


@pytest.mark.parametrize("group", [True, False])
def test_headers_may_be_any_iterable(group: bool) -> None:
    """R10: Headers that can be read only once reach the server."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if group:
            request_task_group(scope)
        headers = iter([(b"x-name", b"value")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    assert run(get(TaskGroupMiddleware(app))).headers == {"x-name": "value"}


def test_length_that_is_no_number() -> None:
    """R10: A Content-Length that is no number is the server's to complain about."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        headers = [(b"content-length", b"many")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    assert run(get(TaskGroupMiddleware(app))).headers == {"content-length": "many"}


def test_handler_that_opens_the_group_while_it_handles() -> None:
    """R3: A handler that re-raises what it was handling cancels its children all the same."""

    async def endpoint(request: Request) -> Response:
        try:
            raise HTTPException(403)
        except HTTPException:
            request_task_group(request).create_task(asyncio.Event().wait())
            raise

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(get(app)).status == 403


def test_grandchild_closes_the_websocket() -> None:
    """R6: A task of a child's may close the WebSocket, which does not wait for the child."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()

        async def child() -> None:
            async with asyncio.TaskGroup() as inner:
                inner.create_task(websocket.close(4000))

        request_task_group(websocket).create_task(child())

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app)
    assert run(Socket(app).run()).log == ["accept", "close 4000"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"2")]])
def test_app_that_reads_while_its_response_is_held(headers: list[tuple[bytes, bytes]]) -> None:
    """R2, R7: An app that has been reading since before its response, which is held back as a child
    has failed, reads that its client has left when the children have ended."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(2)
                log.append("child")

        async def read() -> None:
            try:
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                log.append("reader")

        tg = request_task_group(scope)
        reading = asyncio.create_task(read())
        tg.create_task(child())
        await asyncio.sleep(0)
        tg.create_task(fail())
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await reading

    async def main() -> None:
        await Exchange(TaskGroupMiddleware(app), log=log).disconnect_after(1).run()

    run(main())
    assert log == ["child", "reader", "raised ZeroDivisionError"]


def test_stream_that_reads_that_its_client_has_left() -> None:
    """R2, R7: A response of any kind that streams, and reads that its client has left, reads it
    when the children have ended: it may close what they use."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)
                log.append("child")

        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        log.append("told")

    async def main() -> None:
        await Exchange(TaskGroupMiddleware(app), log=log).disconnect_after(1).run()

    run(main())
    assert log == ["start 200", "chunk a", "child", "told"]
