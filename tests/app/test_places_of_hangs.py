"""The line at which the log says that a request hangs: the last one of the app's own code."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from quattro_web import install, request_task_group
from quattro_web._util.task_stacks import where
from tests.support.asgi import get, run
from tests.support.server import PATIENCE

HERE = Path(__file__)


def library(name: str, source: str, folder: Path = HERE.parent) -> dict[str, Any]:
    """Return the names of a module that is installed beside the tests."""
    path = folder / "site-packages" / f"{name}.py"
    names: dict[str, Any] = {"__name__": name}
    exec(compile(source, path, "exec"), names)
    return names


driver = library("driver", "async def wait(event):\n    await event.wait()\n")


def line(text: str) -> int:
    """Return the number of the only line of this file that ends with this comment."""
    [number] = [
        number
        for number, found in enumerate(HERE.read_text().splitlines(), 1)
        if found.endswith(f"# {text}")
    ]
    return number


async def child() -> None:
    await query()


async def query() -> None:
    await driver["wait"](asyncio.Event())  # query


async def body() -> AsyncIterator[bytes]:
    yield b"data: tick\n\n"
    await query()


async def wrapped() -> AsyncIterator[bytes]:
    async for piece in body():
        yield piece


def logged(app: Any, errors: list[logging.LogRecord]) -> str:
    """Return what the log says of a request whose deadline passes."""
    run(get(app), stray="_shutdown_watcher")  # of sse-starlette
    [record] = errors
    return record.getMessage().partition("still running: ")[2]


def test_library_that_waits(errors: list[logging.LogRecord]) -> None:
    """A6, R8: Of a child that hangs in a library, the log names the child's function, the last line
    of the app's own code, and the line of the library."""

    async def endpoint(request: Request) -> Response:
        request_task_group(request).create_task(child(), name="the child")
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", endpoint)])
    install(app, deadline=5)
    assert logged(app, errors).partition("the child ")[2] == (
        f"(query, {HERE}:{line('query')}, called by child, "
        f"waiting in wait, {HERE.parent}/site-packages/driver.py:2)"
    )


def test_app_that_is_installed(errors: list[logging.LogRecord]) -> None:
    """A6, R8: So it is where the app itself is installed: its package is that of the function which
    was called first."""
    shop = library(
        "shop",
        "async def endpoint(request):\n"
        "    await load(request)\n"
        "async def load(request):\n"
        "    await wait(event())\n",
    )
    shop.update(wait=driver["wait"], event=asyncio.Event)
    app = Starlette(routes=[Route("/", shop["endpoint"])])
    install(app, deadline=5)
    folder = HERE.parent / "site-packages"
    assert logged(app, errors) == (
        f"handler (load, {folder}/shop.py:4, waiting in wait, {folder}/driver.py:2)"
    )


async def streaming(request: Request) -> Response:
    return StreamingResponse(body())


async def streaming_wrapped(request: Request) -> Response:
    return StreamingResponse(wrapped())


async def streaming_events(request: Request) -> Response:
    return EventSourceResponse(body())


async def awaiting_a_task(request: Request) -> Response:
    await asyncio.ensure_future(query())
    raise AssertionError


async def awaiting_a_group(request: Request) -> Response:
    async with anyio.create_task_group() as group:
        group.start_soon(query)
    raise AssertionError


async def passing(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def starlette_app(endpoint: Callable[[Request], Awaitable[Response]], *around: Middleware) -> Any:
    app = Starlette(routes=[Route("/", endpoint, middleware=around)])
    install(app, deadline=5, stream_deadline=5)
    return app


@pytest.mark.parametrize(
    "app",
    [
        starlette_app(streaming),
        starlette_app(streaming_wrapped),
        starlette_app(streaming_events),
        starlette_app(awaiting_a_task),
        starlette_app(awaiting_a_group),
        starlette_app(streaming, Middleware(BaseHTTPMiddleware, dispatch=passing)),
    ],
    ids=["stream", "nested generators", "sse-starlette", "task", "anyio", "BaseHTTP"],
)
def test_streams_and_tasks(app: Any, errors: list[logging.LogRecord]) -> None:
    """A6, R8: Of a response that streams, the log names the line at which its generator hangs, and
    of a handler that awaits a task that of the task, and not the server's line."""
    assert f"query, {HERE}:{line('query')}, " in logged(app, errors)


def blocking() -> Iterator[bytes]:
    yield b"data: tick\n\n"  # blocking


async def lazy() -> AsyncIterator[bytes]:
    yield b"data: tick\n\n"  # lazy


async def streaming_lazy(request: Request) -> Response:
    return StreamingResponse(lazy())


async def streaming_lazy_events(request: Request) -> Response:
    return EventSourceResponse(lazy())


async def streaming_blocking(request: Request) -> Response:
    return StreamingResponse(blocking())


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [(streaming_lazy, "lazy"), (streaming_lazy_events, "lazy"), (streaming_blocking, "blocking")],
)
@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_client_that_does_not_read(endpoint: Any, name: str, version: str) -> None:
    """A6, R8: Of a stream whose client does not read, the log names the line at which its generator
    has yielded what waits to be sent."""
    server = library(
        "server",
        "async def serve(app, scope, never, sends):\n"
        "    async def send(message):\n"
        "        if message.get('body'):\n"
        "            sends.set()\n"
        "            await never.wait()\n"
        "    await app(scope, never.wait, send)\n",
    )
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": version},
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "state": {},
    }

    async def main() -> str:
        sends, app = asyncio.Event(), starlette_app(endpoint)
        serving = asyncio.create_task(server["serve"](app, scope, asyncio.Event(), sends))
        await sends.wait()
        found = where(serving)
        serving.cancel()
        await asyncio.wait((serving,))
        return found

    waiting = f"waiting in serve.<locals>.send, {HERE.parent}/site-packages/server.py:5"
    found = asyncio.run(main())
    assert f"{name}, {HERE}:{line(name)}, {waiting}" in found
    assert found.count(f"{name}, ") == 1


def test_event_stream_of_fastapi(errors: list[logging.LogRecord]) -> None:
    """A6, R8: So it is with an event stream of FastAPI's own."""
    sse = pytest.importorskip("fastapi.sse", reason="a FastAPI without event streams of its own")
    app = FastAPI()
    app.add_api_route("/", wrapped, response_class=sse.EventSourceResponse)
    install(app, deadline=5, stream_deadline=5)
    assert f"query, {HERE}:{line('query')}, " in logged(app, errors)


def test_thread() -> None:
    """A6, R8: Of what works in a thread, the log names the line at which the thread is, such as
    that of a ``def`` generator which is the body of a response."""
    released, begun = threading.Event(), asyncio.Event()

    async def main() -> str:
        loop = asyncio.get_running_loop()

        def pieces() -> Iterator[bytes]:
            yield b""
            loop.call_soon_threadsafe(begun.set), released.wait(PATIENCE)  # in a thread

        serving = asyncio.create_task(get(StreamingResponse(pieces())))
        await begun.wait()
        found = where(serving)
        released.set()
        await serving
        return found

    assert f".pieces, {HERE}:{line('in a thread')}" in asyncio.run(main())
