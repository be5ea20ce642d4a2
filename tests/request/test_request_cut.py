"""A failure after the first byte cuts the response."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import get, run


def stream_app(error: Exception, **route: Any) -> Starlette:
    """Return an app that streams without an end, and one of whose children fails after a while."""

    async def endpoint(request: Request) -> Response:
        failing = asyncio.Event()

        async def child() -> None:
            await failing.wait()
            raise error

        request_task_group(request).create_task(child())

        async def chunks() -> AsyncIterator[str]:
            yield "a"
            failing.set()
            while True:
                await asyncio.sleep(0)
                yield "b"

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", endpoint, **route)])
    install(app)
    return app


@pytest.mark.parametrize("error", [ZeroDivisionError(), HTTPException(404)])
def test_stream_is_cut(error: Exception) -> None:
    """R5: A child's failure in the middle of a stream leaves the app: the server cuts."""
    exchange = run(get(stream_app(error)))
    assert exchange.status == 200
    assert not exchange.is_complete
    assert exchange.error is error
    assert exchange.sent[-1]["more_body"]


def test_stream_is_cut_behind_base_http_middleware() -> None:
    """R5: So it is with BaseHTTPMiddleware between the gate and the handler."""

    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    error = ZeroDivisionError()
    exchange = run(get(stream_app(error, middleware=[Middleware(Base)])))
    assert exchange.sent[-1]["more_body"]
    assert exchange.error is error


def test_failure_while_the_last_message_waits() -> None:
    """R5: The end of a stream is not sent if a child fails meanwhile (trap: join ignores it)."""

    async def endpoint(request: Request) -> Response:
        async def child() -> None:
            for _ in range(9):
                await asyncio.sleep(0)
            raise ZeroDivisionError

        request_task_group(request).create_task(child())

        async def chunks() -> AsyncIterator[str]:
            yield "all"

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    log: list[str] = []
    run(get(app, log=log))
    assert log == ["start 200", "chunk all", "raised ZeroDivisionError"]


def test_response_that_was_held_back_is_never_sent() -> None:
    """R4: Of the response that the failure has replaced, nothing is sent (trap: held start)."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            raise ZeroDivisionError

        request_task_group(scope).create_task(child())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
        except ZeroDivisionError:  # an app that does not take no for an answer
            for _ in range(2):
                with pytest.raises(asyncio.CancelledError):
                    await send({"type": "http.response.body", "body": b"ok"})
            raise

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["raised ZeroDivisionError"]


def test_failure_while_another_task_streams() -> None:
    """R5: send() is stopped in whichever task it is called (FastAPI's SSE, anyio's groups)."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        failing = asyncio.Event()

        async def child() -> None:
            await failing.wait()
            raise ZeroDivisionError

        async def stream() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            failing.set()
            await send({"type": "http.response.body", "body": b""})

        request_task_group(scope).create_task(child())
        async with TaskGroup() as tg:
            tg.create_task(stream())

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["start 200", "chunk a", "raised ZeroDivisionError"]


def test_cancelled_group_is_no_clean_end() -> None:
    """R5, C9: A handler that cancels its own request group sends no clean end of what it began."""

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)

        async def chunks() -> AsyncIterator[str]:
            yield "a"
            tg.cancel()
            await asyncio.Event().wait()

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = run(get(app))
    assert not exchange.is_complete
    assert isinstance(exchange.error, RuntimeError)


def test_cancelled_group_before_a_response_is_a_500() -> None:
    """C9, R4: A handler that cancels its own request group before it has answered is a 500."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).cancel()
        await asyncio.Event().wait()
        raise AssertionError

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(get(app)).status == 500


def test_cancellation_from_outside_passes() -> None:
    """R2, C10: A cancellation from outside ends the children and goes on as itself."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        async def child() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                log.append("child ended")

        request_task_group(request).create_task(child())
        return Response()

    async def main() -> None:
        app = Starlette(routes=[Route("/", endpoint)])
        install(app)
        request = asyncio.create_task(get(app, log=log))
        for _ in range(5):
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert request.cancelled()

    run(main())
    assert log == ["child ended"]


def test_chunk_after_a_failure_is_not_sent() -> None:
    """R5: A handler that ignores its cancellation sends no chunk after its child has failed."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def child() -> None:
            await asyncio.sleep(1)
            raise ZeroDivisionError

        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b"b", "more_body": True})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["start 200", "chunk a", "raised ZeroDivisionError"]


def test_cancellation_after_a_failure_that_was_handled_is_a_500() -> None:
    """R4: A handler that has caught its child's failure, and is cancelled by itself then, is a 500,
    and no response that never comes."""

    async def endpoint(request: Request) -> Response:
        async def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await request_task_group(request).create_task(fail())
        raise asyncio.CancelledError

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    assert run(get(app)).status == 500
