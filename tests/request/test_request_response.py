"""The response does not complete before the children have."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, request_task_group
from tests.request.gated import app_of, ticks
from tests.support.asgi import get, run


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
