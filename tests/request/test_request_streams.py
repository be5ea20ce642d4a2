"""Streams, server-sent events and files, as frameworks make them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from quattro_web import TaskGroupMiddleware, install, request_task_group
from quattro_web.fastapi import RequestTaskGroup
from tests.support.asgi import Exchange, get, run

# Older versions of FastAPI do not stream what an endpoint yields.
sse: Any = pytest.importorskip("fastapi.sse", reason="this FastAPI has no generator endpoints")


async def fail_later(log: list[str]) -> None:
    await asyncio.sleep(4.5)
    log.append("child fails")
    raise ZeroDivisionError


async def work(log: list[str], seconds: float = 5) -> None:
    await asyncio.sleep(seconds)
    log.append("child ended")


def fastapi_stream(kind: str, log: list[str], *, fails: bool) -> FastAPI:
    """Return an app with a generator endpoint, which FastAPI runs in a task of its own."""
    app = FastAPI()

    async def items(tg: RequestTaskGroup) -> AsyncIterator[dict[str, int]]:
        tg.create_task(fail_later(log) if fails else work(log))
        for number in range(3 if not fails else 99):
            await asyncio.sleep(1)
            yield {"n": number}

    options: dict[str, Any] = {}
    if kind == "server-sent events":
        options["response_class"] = sse.EventSourceResponse
    app.get("/", **options)(items)
    install(app)
    return app


@pytest.mark.parametrize("kind", ["server-sent events", "JSON lines"])
def test_end_of_a_generator_endpoint_waits(kind: str) -> None:
    """R2: The end of FastAPI's own streams, which another task sends, waits for the children."""
    log: list[str] = []
    exchange = run(get(fastapi_stream(kind, log, fails=False), log=log))
    assert exchange.is_complete
    assert [entry.partition(" ")[0] for entry in log] == [
        "start", "chunk", "chunk", "chunk", "child", "body",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["server-sent events", "JSON lines"])
def test_failure_cuts_a_generator_endpoint(kind: str) -> None:
    """R5: A child's failure cuts FastAPI's own streams, and the error leaves the app."""
    log: list[str] = []
    exchange = run(get(fastapi_stream(kind, log, fails=True), log=log))
    assert not exchange.is_complete
    assert isinstance(exchange.error, ZeroDivisionError)
    assert log[-2:] == ["child fails", "raised ZeroDivisionError"]


@pytest.mark.parametrize("fails", [False, True])
def test_sse_starlette(fails: bool) -> None:
    """R2, R5: EventSourceResponse of sse-starlette ends after the children, or is cut."""
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        tg = request_task_group(request)
        tg.create_task(fail_later(log) if fails else work(log))

        async def events() -> AsyncIterator[dict[str, str]]:
            for number in range(99 if fails else 3):
                await asyncio.sleep(1)
                yield {"data": str(number)}

        return EventSourceResponse(events())

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    # It watches for the shutdown of the server in a task that nobody awaits.
    exchange = run(get(app, log=log), stray="_shutdown_watcher")
    assert exchange.is_complete is not fails
    if fails:
        assert isinstance(exchange.error, ZeroDivisionError)
    else:
        assert log[-2:] == ["child ended", "body"]


@pytest.mark.parametrize(
    ("headers", "extensions"),
    [((), {}), ([("range", "bytes=1-3")], {}), ((), {"http.response.pathsend": {}})],
)
def test_files(tmp_path: Path, headers: Any, extensions: dict[str, Any]) -> None:
    """R2: The last byte of a file, whole, by range or by its path, waits for the children."""
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    log: list[str] = []

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(work(log))
        return FileResponse(file)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    exchange = run(get(app, headers=headers, extensions=extensions, log=log))
    assert exchange.is_complete
    assert log[0] == "child ended"


@pytest.mark.parametrize("where", ["above", "below"])
@pytest.mark.parametrize("middleware", ["gzip", "base"])
def test_other_middlewares_on_both_sides(where: str, middleware: str) -> None:
    """R2, R10: GZip and BaseHTTPMiddleware, above and below, change nothing of the order."""
    log: list[str] = []

    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(work(log))
        return PlainTextResponse("x" * 1000)

    added: Any = GZipMiddleware if middleware == "gzip" else Base
    inner = Starlette(routes=[Route("/", endpoint)])
    app: Any = inner
    if where == "above":
        install(inner)
        inner.add_middleware(added)
    else:
        inner.add_middleware(added)
        app = TaskGroupMiddleware(Starlette(routes=[Mount("/", inner)]))
    exchange: Exchange = run(get(app, headers=[("accept-encoding", "gzip")], log=log))
    assert exchange.is_complete
    assert log[0] == "child ended"
    assert ("content-encoding" in exchange.headers) is (middleware == "gzip")


def test_stream_through_base_http_middleware_above_ends_properly() -> None:
    """R5: What BaseHTTPMiddleware above makes of a cut is documented: the error still leaves."""
    log: list[str] = []

    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    app = fastapi_stream("JSON lines", log, fails=True)
    app.add_middleware(Base)
    exchange = run(get(app, log=log))
    assert isinstance(exchange.error, ZeroDivisionError)


@pytest.mark.parametrize("handled", [False, True])
def test_stream_that_fails_before_its_first_chunk(handled: bool) -> None:
    """R4: A stream that fails before anything of it has left is answered, be it that its body
    awaits a child or that it fails itself; Starlette by itself takes its start for sent."""
    app = FastAPI()

    async def fail() -> bytes:
        raise HTTPException(404, "no such thing")

    @app.get("/{who}")
    async def handler(who: str, tg: RequestTaskGroup) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield await (tg.create_task(fail()) if who == "child" else fail())

        return StreamingResponse(chunks())

    if handled:

        @app.exception_handler(RuntimeError)
        async def too_late(request: Request, exc: RuntimeError) -> Response:
            raise AssertionError

    install(app)
    for path in ("/child", "/body"):
        exchange = run(get(app, path))
        assert (exchange.status, exchange.body) == (404, b'{"detail":"no such thing"}')
        assert exchange.error is None


def test_start_that_is_due_after_a_failure() -> None:
    """R4: The start of a stream does not leave by itself any more when a child has failed: the
    failure is answered, however long the clean-up of the stream takes."""

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request_task_group(scope).create_task(fail())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.2)

    exchange = run(get(TaskGroupMiddleware(app)))
    assert isinstance(exchange.error, ZeroDivisionError)
    assert exchange.sent == []  # a server answers with a 500
