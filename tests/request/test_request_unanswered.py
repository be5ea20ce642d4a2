"""A request that is cancelled from outside, such as by a middleware, after something has failed."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from quattro_web import install, request_task_group
from tests.support.asgi import Exchange, run


def app_of(
    framework: type[FastAPI | Starlette], error: type[Exception], clean_up: float
) -> Starlette:
    """Return an app whose requests fail after a second, and have a child with a clean-up."""

    async def fail() -> None:
        await asyncio.sleep(1)
        raise error(400)

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(clean_up)

    async def handler(request: Request) -> None:
        request_task_group(request).create_task(hang())
        await fail()

    async def child(request: Request) -> Response:
        request_task_group(request).create_task(hang())
        request_task_group(request).create_task(fail())
        return Response()

    async def stream(request: Request) -> Response:
        request_task_group(request).create_task(fail())

        async def chunks() -> AsyncIterator[str]:
            while True:
                yield "chunk"
                await asyncio.sleep(0.3)

        return StreamingResponse(chunks())

    endpoints = {f"/{each.__name__}": each for each in (handler, child, stream)}
    app = framework(routes=[Route(*each) for each in endpoints.items()])
    install(app, cancel_on_disconnect=True)  # so that a task reads what the client sends
    return app


def serve(app: Starlette, path: str, seconds: float, turns: int = 0) -> Exchange:
    """Make a request, and cancel it after some seconds, as a middleware's timeout does."""

    async def main() -> Exchange:
        exchange = Exchange(app, path)
        serving = asyncio.create_task(exchange.run())
        await asyncio.sleep(seconds)
        for _ in range(turns):
            await asyncio.sleep(0)
        serving.cancel()
        await asyncio.wait((serving,))
        return exchange

    return run(main())


FRAMEWORKS = pytest.mark.parametrize("framework", [FastAPI, Starlette])


@FRAMEWORKS
@pytest.mark.parametrize("path", ["/handler", "/child", "/stream"])
def test_bug_is_told_once(
    path: str, framework: type[FastAPI | Starlette], caplog: pytest.LogCaptureFixture
) -> None:
    """R4: A request that is cancelled in any turn of the event loop after something has failed
    raises that or logs it, and does not do both."""
    caplog.set_level(logging.ERROR, "quattro_web")
    logged = 0
    for turns in range(2, 20):
        caplog.clear()
        exchange = serve(app_of(framework, ZeroDivisionError, 0), path, 1, turns)
        is_raised = isinstance(exchange.error, ZeroDivisionError)
        assert len(caplog.records) == (0 if is_raised else 1), turns
        for record in caplog.records:
            logged += 1
            assert record.getMessage() == (
                f"GET {path} has failed, and was cancelled before it was answered"
            )
            assert record.exc_info is not None
            assert record.exc_info[0] is ZeroDivisionError
    assert logged


@FRAMEWORKS
@pytest.mark.parametrize("path", ["/handler", "/child"])
def test_bug_before_a_long_clean_up(
    path: str, framework: type[FastAPI | Starlette], caplog: pytest.LogCaptureFixture
) -> None:
    """R4: So it is while the children clean up, for seconds."""
    caplog.set_level(logging.ERROR, "quattro_web")
    exchange = serve(app_of(framework, ZeroDivisionError, 5), path, 3)
    assert isinstance(exchange.error, ZeroDivisionError) != bool(caplog.records)


@FRAMEWORKS
def test_what_has_a_handler_is_no_bug(
    framework: type[FastAPI | Starlette], caplog: pytest.LogCaptureFixture
) -> None:
    """R4: A 400 that is not answered any more is none."""
    caplog.set_level(logging.ERROR, "quattro_web")
    exchange = serve(app_of(framework, HTTPException, 5), "/handler", 3)
    assert exchange.sent == []
    assert not caplog.records
