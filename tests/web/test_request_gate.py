"""The response does not complete before the children have."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import Exchange, get, run

Endpoint = Callable[[Request], Awaitable[Response]]


def app_of(endpoint: Endpoint, **route: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint, **route)])
    install(app)
    return app


async def ticks(log: list[str], name: str, count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
    log.append(name)


def test_no_byte_before_the_children_have_ended() -> None:
    """R2: Of an ordinary response, no byte leaves before every foreground child has finished
    (trap: join after the response)."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(ticks(log, "child"))
        return PlainTextResponse("ok")

    run(get(app_of(endpoint), log=log))
    assert log == ["child", "start 200", "body ok"]


def test_background_tasks_end_before_the_response() -> None:
    """R2, C3: Background tasks go on while children need them, and have ended before a byte."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        asked: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

        async def pump() -> None:
            try:
                while True:
                    (await asked.get()).set_result("answer")
            finally:
                await asyncio.sleep(0)
                log.append("pump ended")

        async def child() -> None:
            await asyncio.sleep(0)
            answer = asyncio.get_running_loop().create_future()
            asked.put_nowait(answer)
            log.append(await answer)

        tg.create_background_task(pump())
        tg.create_task(child())
        return PlainTextResponse("ok")

    run(get(app_of(endpoint), log=log))
    assert log == ["answer", "pump ended", "start 200", "body ok"]


def test_children_produce_a_stream() -> None:
    """R2: Chunks leave as they are made, by a child of the group, and the last message waits."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        queue: asyncio.Queue[str | None] = asyncio.Queue(1)

        async def produce() -> None:
            for item in ["a", "b", None]:
                await queue.put(item)
            await ticks(log, "producer ended", 9)

        async def chunks() -> AsyncIterator[str]:
            while (item := await queue.get()) is not None:
                yield item

        tg.create_task(produce())
        return StreamingResponse(chunks())

    run(get(app_of(endpoint), log=log))
    assert log == ["start 200", "chunk a", "chunk b", "producer ended", "body"]


def test_child_spawned_by_the_generator() -> None:
    """R2: A child that the generator of a stream spawns, the first of the request, is awaited."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            yield "a"
            request_task_group(request).create_task(ticks(log, "child", 9))
            yield "b"

        return StreamingResponse(chunks())

    run(get(app_of(endpoint), log=log))
    assert log == ["start 200", "chunk a", "chunk b", "child", "body"]


@pytest.mark.parametrize(
    ("method", "status", "headers", "chunk"),
    [
        ("GET", 200, [(b"Content-Length", b"2")], b"ok"),
        ("HEAD", 200, [(b"content-length", b"2")], b""),
        ("GET", 204, [], b""),
        ("GET", 304, [(b"content-length", b"2")], b""),
    ],
)
def test_last_byte_waits_although_more_is_said_to_come(
    method: str, status: int, headers: list[Any], chunk: bytes
) -> None:
    """R2: What completes the response waits, even if an empty message follows (trap: re-chunks)."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    run(get(TaskGroupMiddleware(app), method=method, log=log))
    assert log == ["child", f"start {status}", f"chunk {chunk.decode()}", "body"]


def test_below_base_http_middleware() -> None:
    """R2: BaseHTTPMiddleware between the gate and the handler changes nothing."""
    log: list[str] = []

    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(ticks(log, "child", 20))
        return PlainTextResponse("ok")

    run(get(app_of(endpoint, middleware=[Middleware(Base)]), log=log))
    assert log == ["child", "start 200", "chunk ok", "body"]


def test_start_of_a_silent_stream_is_not_held_for_ever() -> None:
    """R2: The start of a stream leaves although its first chunk is long in coming."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[str]:
            await asyncio.sleep(60)
            log.append("a minute later")
            yield "a"

        request_task_group(request).create_background_task(asyncio.Event().wait())
        return StreamingResponse(chunks())

    run(get(app_of(endpoint), log=log))
    assert log == ["start 200", "a minute later", "chunk a", "body"]


def test_first_chunk_waits_for_a_start_that_is_being_sent() -> None:
    """R2, R10: A chunk does not overtake the start that a slow client is still taking."""
    log: list[str] = []

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.start":
            await asyncio.sleep(10)
            log.append("start taken")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b"a"})

    run(get(TaskGroupMiddleware(app), log=log, on_send=slow))
    assert log == ["start 200", "start taken", "body a"]


def test_ordinary_response_is_held_as_long_as_it_takes() -> None:
    """R2: An ordinary response is held, whatever the time that its children take."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(60)
        log.append("child")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a"})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200", "body a"]


def test_path_send_waits() -> None:
    """R2: A file that the server sends by its path waits for the children."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": __file__})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200", "pathsend"]


def test_trailers_come_last() -> None:
    """R2, R10: Trailers are passed on after the body, for which the children were awaited."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"ok"})
        await send({"type": "http.response.trailers", "headers": []})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200", "body ok", "trailers"]


def test_early_hints_are_not_held_back() -> None:
    """R10: What comes before the response leaves at once."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))
        await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["early_hint", "child", "start 200", "body ok"]


def test_child_that_sends_the_response() -> None:
    """R2: A child may send the response itself: its end waits for the child and the others."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def respond() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})
            await ticks(log, "response sent")

        tg = request_task_group(scope)
        tg.create_task(respond())
        tg.create_task(ticks(log, "other", 9))

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["response sent", "other", "start 200", "body ok"]


def test_handler_that_sends_nothing() -> None:
    """R2, R10: An app that sends no response ends after its children; nothing is made up for it."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))

    exchange = run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child"]
    assert exchange.error is None


def test_start_without_a_body_reaches_the_server() -> None:
    """R10: A response that was begun and not ended is the server's to complain about."""
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_task_group(scope).create_task(ticks(log, "child"))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    run(get(TaskGroupMiddleware(app), log=log))
    assert log == ["child", "start 200"]


def test_spawning_after_the_end_is_an_error() -> None:
    """R2: A BackgroundTask runs after the response: asking and spawning are clear errors there."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)

        async def late() -> None:
            with pytest.raises(RuntimeError, match="is finished"):
                tg.create_task(ticks(log, "never"))
            log.append("refused")

        return PlainTextResponse("ok", background=BackgroundTask(late))

    async def other(request: Request) -> Response:
        async def late() -> None:
            with pytest.raises(RuntimeError, match="app_task_group"):
                request_task_group(request)
            log.append("refused")

        return PlainTextResponse("ok", background=BackgroundTask(late))

    for each in (endpoint, other):
        run(get(app_of(each), log=log))
        assert log == ["start 200", "body ok", "refused"]
        log.clear()


def test_group_of_another_request_is_untouched() -> None:
    """R2: Waiting for the children of one request does not hold another one back."""
    log: list[str] = []
    released = asyncio.Event()

    async def endpoint(request: Request) -> Response:
        if request.url.query:
            request_task_group(request).create_task(released.wait())
        return PlainTextResponse(request.url.query or "quick")

    async def main() -> None:
        app = app_of(endpoint)
        slow = asyncio.create_task(Exchange(app, "/?slow", log=log).run())
        await asyncio.sleep(0)
        await get(app, log=log)
        released.set()
        await slow

    run(main())
    assert log == ["start 200", "body quick", "start 200", "body slow"]
