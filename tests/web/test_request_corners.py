"""Corners of the request group: who asks, who answers, and what is handled around it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    CancelReason,
    TaskGroupMiddleware,
    cancel_reason,
    install,
    request_task_group,
    set_deadline,
    uninterrupted,
)
from quattro_web.fastapi import RequestTaskGroup
from tests.support.asgi import Exchange, Socket, get, run


def asking(app: Any) -> Any:
    """Middleware that asks for the group before anybody else does."""

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        await app(scope, receive, send)

    return ask


def test_group_that_a_middleware_has_asked_for() -> None:
    """R3: Children end before the dependencies of a handler also if a middleware had the group."""
    log: list[str] = []

    async def session() -> AsyncIterator[None]:
        yield
        log.append("session closed")

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("child ended")

    app = FastAPI(middleware=[Middleware(TaskGroupMiddleware), Middleware(asking)])

    @app.get("/")
    async def handler(s: Annotated[None, Depends(session)], tg: RequestTaskGroup) -> None:
        tg.create_task(child())
        await asyncio.sleep(0)
        raise ValueError

    run(get(app))
    assert log[:1] == ["child ended"]


def test_app_that_answers_from_an_except_block() -> None:
    """R2: What falls back on another app from an except block is no failure of that other app."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        log.append("child")

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(child())
        await PlainTextResponse("ok")(scope, receive, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise HTTPException(404)
        except HTTPException:
            await inner(scope, receive, send)

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200", "body ok"]


def test_child_that_answers_with_an_error() -> None:
    """R4: A child may run an app that answers a failure of its own: that answer is the answer."""
    inner = Starlette()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(inner(scope, receive, send))

    exchange = run(get(TaskGroupMiddleware(app)))
    assert (exchange.status, exchange.error) == (404, None)


def test_read_that_was_given_up_does_not_end_the_watch() -> None:
    """R7: A handler that has given up reading is cancelled when its client leaves."""
    left = asyncio.Event()

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().call_later(1, left.set)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.1)
        await asyncio.sleep(60)

    async def send(message: Message) -> None:
        raise AssertionError

    async def main() -> float:
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await TaskGroupMiddleware(app, cancel_on_disconnect=True)(scope, receive, send)
        return asyncio.get_running_loop().time()

    assert run(main()) == 1


def sub_app(endpoint: Any) -> Starlette:
    """Return an app with a deadline, and an installed app mounted in it."""
    sub = Starlette(routes=[Route("/", endpoint)])
    install(sub)
    app = Starlette(routes=[Mount("/sub", sub)])
    install(app, deadline=5)
    return app


def test_sub_app_keeps_a_section_from_the_outer_deadline() -> None:
    """R8: In an installed sub-app, too, a section is not cut by the deadline of the outer app."""
    seen: list[CancelReason | None] = []

    async def endpoint(request: Request) -> Response:
        with uninterrupted(request):
            await asyncio.sleep(7)
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(cancel_reason(request))
        raise AssertionError

    async def main() -> float:
        assert (await get(sub_app(endpoint), "/sub/")).status == 504
        return asyncio.get_running_loop().time()

    assert run(main()) == 7
    assert seen == [CancelReason.DEADLINE]


def test_sub_app_may_lift_the_outer_deadline() -> None:
    """R8: In an installed sub-app, too, a route may have no deadline."""

    async def endpoint(request: Request) -> Response:
        set_deadline(request, None)
        await asyncio.sleep(60)
        return PlainTextResponse("late")

    assert run(get(sub_app(endpoint), "/sub/")).status == 200


def test_exception_handler_that_fails() -> None:
    """R4: What an exception handler raises has the child's error for its context: none is lost."""
    error = ValueError("of the child")

    async def handler(request: Request, exc: Exception) -> Response:
        raise KeyError

    async def child() -> None:
        raise error

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child())
        return PlainTextResponse("never seen")

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={ValueError: handler})
    install(app)
    exchange = run(get(app))
    assert isinstance(exchange.error, KeyError)
    assert exchange.error.__context__ is error


def test_failure_that_two_children_share() -> None:
    """R4: A child that awaits another one fails with the same error: that is one failure."""

    async def refuse() -> None:
        raise HTTPException(404)

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)

        async def both() -> None:
            await asyncio.gather(tg.create_task(refuse()))

        tg.create_task(both())
        return PlainTextResponse("never seen")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = run(get(app))
    assert (exchange.status, exchange.error) == (404, None)


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


def test_deadline_is_answered_by_a_handler_that_reads_the_body() -> None:
    """R8: An exception handler that reads the body gets it again, and does not wait for more."""

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
    exchange = run(get(app, method="POST", body=[b"he", b"llo"]))
    assert (exchange.status, exchange.body) == (504, b"hello")


def test_headers_may_be_any_iterable() -> None:
    """R10: Headers that can be read only once reach the server."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        headers = iter([(b"x-name", b"value")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    assert run(get(TaskGroupMiddleware(app))).headers == {"x-name": "value"}


def test_handler_that_opens_the_group_while_it_handles() -> None:
    """R3: A handler that re-raises what it was handling cancels its children all the same."""

    async def endpoint(request: Request) -> Response:
        try:
            raise HTTPException(403)
        except HTTPException:
            request_task_group(request).create_task(asyncio.sleep(60))
            raise

    async def main() -> float:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app)
        assert (await get(app)).status == 403
        return asyncio.get_running_loop().time()

    assert run(main()) == 0


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
