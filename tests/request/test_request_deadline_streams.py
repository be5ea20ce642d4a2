"""The deadline of a stream is the time until it begins, unless it was given another one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse as FastAPIStream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from quattro_web import (
    CancelReason,
    DeadlineExceededError,
    TaskGroupMiddleware,
    install,
    request_task_group,
    set_deadline,
    time_left,
    uninterrupted,
)
from quattro_web.fastapi import Deadline, RequestTaskGroup
from tests.request.timed import app_of, slow, timed
from tests.support.asgi import Exchange, Socket, get, run

EVENTS = "text/event-stream"
LENGTH = {"content-length": "40"}


async def ticks(count: int = 10) -> AsyncIterator[bytes]:
    """Make a chunk every 2 seconds: the last one of ten after 18 seconds, the end after 20."""
    for _ in range(count):
        yield b"tick"
        await asyncio.sleep(2)


async def stream(request: Request) -> Response:
    return StreamingResponse(ticks(), media_type=EVENTS)


async def stream_with_children(request: Request) -> Response:
    """The children last as long as the stream, and 5 seconds longer."""
    request_task_group(request).create_task(asyncio.sleep(25), name="the child")
    return StreamingResponse(ticks(), media_type=EVENTS)


async def download(request: Request) -> Response:
    return StreamingResponse(ticks(), headers=LENGTH)


async def download_with_children(request: Request) -> Response:
    request_task_group(request).create_task(asyncio.sleep(25))
    return StreamingResponse(ticks(), headers=LENGTH)


STREAMS: dict[Any, float] = {
    stream: 20,
    stream_with_children: 25,
    download: 20,
    download_with_children: 25,
}


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


def plain(endpoint: Any, **options: Any) -> ASGIApp:
    return app_of(endpoint, **options)


def in_fastapi(endpoint: Any, **options: Any) -> ASGIApp:
    app = FastAPI()
    app.add_route("/", endpoint)
    install(app, **options)
    return app


def mounted(endpoint: Any, **options: Any) -> ASGIApp:
    app = Starlette(routes=[Mount("/", Starlette(routes=[Route("/", endpoint)]))])
    install(app, **options)
    return app


def mounted_in_fastapi(endpoint: Any, **options: Any) -> ASGIApp:
    sub = FastAPI()
    sub.add_route("/", endpoint)
    app = FastAPI()
    app.mount("/", sub)
    install(app, **options)
    return app


def mounted_with_its_own(endpoint: Any, **options: Any) -> ASGIApp:
    """The sub-app has a middleware of its own, which answers."""
    app = Starlette(routes=[Mount("/", app_of(endpoint))])
    install(app, **options)
    return app


def below_middlewares(endpoint: Any, **options: Any) -> ASGIApp:
    app = app_of(endpoint, **options)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(PassOn)
    return app


def above_middlewares(endpoint: Any, **options: Any) -> ASGIApp:
    """Whatever leaves the app is the stream of a BaseHTTPMiddleware."""
    routes = [Route("/", endpoint)]
    return TaskGroupMiddleware(Starlette(routes=routes, middleware=[Middleware(PassOn)]), **options)


APPS = [
    plain,
    in_fastapi,
    mounted,
    mounted_in_fastapi,
    mounted_with_its_own,
    below_middlewares,
    above_middlewares,
]
everywhere = pytest.mark.parametrize("make", APPS)
every_stream = pytest.mark.parametrize("endpoint", STREAMS)


@everywhere
@every_stream
def test_stream_that_has_begun_in_time_goes_on(make: Callable[..., ASGIApp], endpoint: Any) -> None:
    """R8: The deadline does not cut a stream that has begun, of unknown or known length; with
    children or without; in any app."""
    exchange, seconds = run(timed(make(endpoint, deadline=5)))
    assert (exchange.body, seconds) == (b"tick" * 10, STREAMS[endpoint])
    assert exchange.is_complete


@everywhere
@every_stream
def test_stream_is_cut_at_its_own_deadline(make: Callable[..., ASGIApp], endpoint: Any) -> None:
    """R8, R5: A stream that outlives its own deadline, counted from the same begin, is cut."""
    exchange, seconds = run(timed(make(endpoint, deadline=5, stream_deadline=9)))
    assert (exchange.body, seconds) == (b"tick" * 5, 9)
    assert not exchange.is_complete
    # An app around the one that answers says that it can't answer this any more.
    cause = None if exchange.error is None else exchange.error.__cause__
    assert isinstance(cause or exchange.error, DeadlineExceededError)


@everywhere
def test_stream_that_begins_too_late_is_answered(make: Callable[..., ASGIApp]) -> None:
    """R8: A stream that has not begun at the deadline is a 504, though a stream may last longer."""

    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(6)
        return await stream(request)

    exchange, seconds = run(timed(make(endpoint, deadline=5, stream_deadline=100)))
    assert (exchange.status, exchange.is_complete, seconds) == (504, True, 5)


@everywhere
def test_ordinary_response_has_begun_when_its_children_have_ended(
    make: Callable[..., ASGIApp],
) -> None:
    """R8: The deadline covers the children of an ordinary response, though a stream has longer."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(asyncio.sleep(60))
        return PlainTextResponse("never seen")

    exchange, seconds = run(timed(make(endpoint, deadline=5, stream_deadline=100)))
    assert (exchange.status, exchange.is_complete, seconds) == (504, True, 5)


@pytest.mark.parametrize(("limits", "end"), [({}, 20), ({"stream": 9}, 9)])
def test_route_says_both(limits: dict[str, float], end: float) -> None:
    """R8: What a route says replaces both of what the app says."""

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 3, **limits)
        return await stream(request)

    app = FastAPI()

    @app.get("/dependency", dependencies=[Deadline(3, **limits)])
    async def dependency(tg: RequestTaskGroup) -> FastAPIStream:
        return FastAPIStream(ticks())

    install(app, deadline=1, stream_deadline=7)
    for which, path in (
        (app_of(endpoint, deadline=1, stream_deadline=7), "/"),
        (app, "/dependency"),
    ):
        exchange, seconds = run(timed(which, path=path))
        assert (seconds, exchange.is_complete) == (end, end == 20)


def test_one_limit_on_everything() -> None:
    """R8: The same number twice is a limit on the whole request, whatever it answers."""
    assert run(timed(app_of(slow, deadline=5, stream_deadline=5)))[0].status == 504
    exchange, seconds = run(timed(app_of(stream, deadline=5, stream_deadline=5)))
    assert (exchange.body, exchange.is_complete, seconds) == (b"tick" * 3, False, 5)


def test_stream_that_is_set_its_deadline_in_its_body() -> None:
    """R8: A stream that has begun may set its deadline anew: it has kept the one until it begins,
    each time."""

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            yield "tick"
            await asyncio.sleep(1)
            set_deadline(request, 2, **limits)
            async for chunk in ticks():
                yield chunk.decode()

        limits = {"stream": 4.0} if request.query_params else {}
        return StreamingResponse(chunks())

    app = app_of(endpoint, deadline=0.5)
    assert run(timed(app))[1] == 21
    exchange, seconds = run(timed(app, path="/?stream"))
    assert (exchange.body, exchange.is_complete, seconds) == (b"tick" * 3, False, 5)


@pytest.mark.parametrize("with_group", [False, True])
@pytest.mark.parametrize("headers", [{}, {"content-length": "20"}])
def test_download_that_is_read_slowly(headers: dict[str, str], *, with_group: bool) -> None:
    """R8: A body in pieces, of known length or not, has begun with its first one, however slowly
    its client reads."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"data"

    async def endpoint(request: Request) -> Response:
        if with_group:
            request_task_group(request)
        return StreamingResponse(pieces(), headers=headers)

    async def read_slowly(message: Message) -> None:
        if message.get("body"):
            await asyncio.sleep(3)

    async def main(**options: Any) -> tuple[bytes, bool]:
        exchange = await get(app_of(endpoint, **options), on_send=read_slowly)
        return exchange.body, exchange.is_complete

    assert run(main(deadline=5)) == (b"data" * 5, True)
    assert run(main(deadline=5, stream_deadline=8)) == (b"data" * 3, False)


@pytest.mark.parametrize(("limits", "is_complete"), [({}, True), ({"stream": 0.01}, False)])
@pytest.mark.parametrize("with_group", [False, True])
def test_file_that_is_read_slowly(
    tmp_path: Path, limits: dict[str, float], *, with_group: bool, is_complete: bool
) -> None:
    """R8: A file that has begun is sent to its end after the deadline, or cut at its own."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 200_000)  # four pieces

    async def endpoint(request: Request) -> Response:
        if with_group:
            request_task_group(request)
        return FileResponse(file)

    async def read_slowly(message: Message) -> None:
        if message.get("more_body"):
            # The timer that was set before the one of this sleep rings before it.
            set_deadline(exchange.scope, 0.01, **limits)
            await asyncio.sleep(0.02)

    exchange = Exchange(app_of(endpoint), on_send=read_slowly)
    asyncio.run(exchange.run())  # a virtual clock would jump while a thread reads the file
    assert (exchange.is_complete, len(exchange.body) == 200_000) == (is_complete, is_complete)


def test_start_that_is_held_back_has_not_begun() -> None:
    """R8: While a start is held back for what follows, the deadline can still be answered."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        await asyncio.sleep(4.98)
        return StreamingResponse(silent(), media_type=EVENTS)

    exchange, seconds = run(timed(app_of(endpoint, deadline=5)))
    assert (exchange.status, exchange.body, seconds) == (504, b"Gateway Timeout", 5)


async def silent() -> AsyncIterator[bytes]:
    await asyncio.sleep(10)
    yield b"tick"


@pytest.mark.parametrize(("after", "status"), [(0.05 - 1e-10, 504), (0.05 + 1e-10, 200)])
def test_start_that_leaves_at_the_deadline(after: float, status: int) -> None:
    """R8, R5: A start that is held back until its deadline is answered, or leaves and is not cut:
    never both, though the loop runs both timers in one step."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request)
        set_deadline(request, after)
        return StreamingResponse(silent(), media_type=EVENTS)

    log: list[str] = []
    exchange = run(get(app_of(endpoint), log=log))
    assert (exchange.status, exchange.is_complete) == (status, True)
    assert [line for line in log if line.startswith(("start", "raised"))] == [f"start {status}"]


def test_section_of_a_stream_is_finished_first() -> None:
    """R8: The deadline of a stream, too, waits for the end of a section that must not be cut."""

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            yield "tick"
            with uninterrupted(request):
                await asyncio.sleep(11)
            await asyncio.sleep(60)

        return StreamingResponse(chunks())

    exchange, seconds = run(timed(app_of(endpoint, deadline=5, stream_deadline=9)))
    assert (exchange.body, exchange.is_complete, seconds) == (b"tick", False, 11)


async def begin(send: Send) -> None:
    """Begin a stream, in plain ASGI."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"tick", "more_body": True})


@pytest.mark.parametrize(("stream", "end"), [(None, 20), (9, 9)])
def test_stream_that_begins_in_a_section(stream: float | None, end: float) -> None:
    """R8: A stream that begins late, in a section that held up its deadline, is none the less one
    that has begun."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_deadline(scope, 5, stream=stream)
        with uninterrupted(scope):
            await asyncio.sleep(6)
            assert time_left(scope) == 0.0
            await begin(send)
        await asyncio.sleep(14)
        await send({"type": "http.response.body", "body": b"end"})

    async def main() -> float:
        with suppress(DeadlineExceededError):
            await get(TaskGroupMiddleware(app), log=log)
        return asyncio.get_running_loop().time()

    assert run(main()) == end
    assert log[:2] == ["start 200", "chunk tick"]
    assert log[2:] == ["body end" if end == 20 else "raised DeadlineExceededError"]


def test_client_that_leaves_in_such_a_section() -> None:
    """R7, R8: When the deadline does not cut what it was held up for, a client that has left
    meanwhile does."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_deadline(scope, 5)
        with uninterrupted(scope):
            await asyncio.sleep(6)
            await begin(send)
        try:
            await asyncio.sleep(14)
        except asyncio.CancelledError as exc:
            seen.append(exc.args[0])
            raise

    async def main() -> float:
        middleware = TaskGroupMiddleware(app, cancel_on_disconnect=True)
        await Exchange(middleware).disconnect_after(5.5).run()
        return asyncio.get_running_loop().time()

    assert run(main()) == 6
    assert seen == [CancelReason.DISCONNECT]


def test_log_names_what_was_still_running(caplog: pytest.LogCaptureFixture) -> None:
    """R8: The log names what a stream was doing at its deadline, and nothing of one in time."""
    with caplog.at_level(logging.WARNING, "quattro_web"):
        run(get(app_of(stream_with_children, deadline=5)))
        assert caplog.records == []
        run(get(app_of(stream_with_children, deadline=5, stream_deadline=9)))
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("GET / has passed its deadline after 9.000 s; still running: handler")
    assert "the child (" in message


def test_stream_in_time_leaves_nothing_behind() -> None:
    """R8, R9: A stream that is complete in time is not touched by its deadline."""

    async def main() -> None:
        exchange = await get(app_of(stream, deadline=5, stream_deadline=30))
        assert exchange.is_complete
        await asyncio.sleep(60)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(main())


@pytest.mark.parametrize("media_type", ["text/plain", EVENTS])
def test_background_tasks_have_no_deadline(
    media_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R8: What Starlette does after the response is not cut, nor does the log speak of it."""
    log: list[str] = []

    async def later() -> None:
        await asyncio.sleep(60)
        log.append("later")

    async def endpoint(request: Request) -> Response:
        kind = StreamingResponse if media_type == EVENTS else Response
        content: Any = ticks(1) if media_type == EVENTS else "tick"
        return kind(content, media_type=media_type, background=BackgroundTask(later))

    with caplog.at_level(logging.WARNING, "quattro_web"):
        run(get(app_of(endpoint, deadline=5, stream_deadline=9)))
    assert (log, caplog.records) == (["later"], [])


@pytest.mark.parametrize("stream", [None, 30])
def test_websocket_has_one_deadline(stream: float | None) -> None:
    """R8, R6: An accepted WebSocket is closed at its deadline: it has no response that begins."""

    async def endpoint(websocket: WebSocket) -> None:
        set_deadline(websocket, 5, stream=stream)
        await websocket.accept()
        await asyncio.sleep(2)
        assert time_left(websocket) == 3
        await asyncio.sleep(60)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    install(app, deadline=1)

    async def main() -> tuple[list[str], float]:
        socket = await Socket(app).run()
        return socket.log, asyncio.get_running_loop().time()

    assert run(main()) == (["accept", "close 1011"], 5)
