"""Requests within requests: a handler that calls an app, its own one too, in its own task."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_web import TaskGroupMiddleware, install, request_task_group
from tests.support.asgi import get, run

Calls = Callable[[ASGIApp, str], Awaitable[int]]


async def call(app: ASGIApp, path: str) -> int:
    return (await get(app, path)).status


async def call_in_a_task(app: ASGIApp, path: str) -> int:
    return await asyncio.create_task(call(app, path))


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("calls", [call, call_in_a_task])
def test_children_end_with_their_own_handler(calls: Calls, status: int) -> None:
    """R3: A handler that has called its own app, and then raises, ends its children before the
    middlewares of its route see what it has raised."""

    class Watching:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.app(scope, receive, send)
            except ValueError:
                log.append("the middleware has seen it")
                raise

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            log.append("the child has ended")

    async def inner(request: Request) -> Response:
        request_task_group(request).create_task(asyncio.sleep(1))
        if status == 500:
            raise KeyError
        return PlainTextResponse()

    async def outer(request: Request) -> Response:
        request_task_group(request).create_task(child())
        await asyncio.sleep(0)
        assert await calls(app, "/inner") == status
        raise ValueError

    log: list[str] = []
    watching = [Middleware(Watching)]
    app = Starlette(routes=[Route("/inner", inner), Route("/", outer, middleware=watching)])
    install(app)
    assert run(get(app)).status == 500
    assert log == ["the child has ended", "the middleware has seen it"]


@pytest.mark.parametrize("has_group", [True, False])
def test_app_that_answers_in_place_of_one_it_has_called(*, has_group: bool) -> None:
    """R1, R2: An app that calls an installed app, drops what that answers and answers by itself has
    its own group then, and its response waits for the children in it."""
    log: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        log.append("child")

    async def inner(request: Request) -> Response:
        if has_group:
            request_task_group(request)
        return PlainTextResponse("dropped", 404)

    async def dropped(message: Message) -> None:
        pass

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        await mounted(scope, receive, dropped)
        request_task_group(scope).create_task(child())
        await PlainTextResponse("own")(scope, receive, send)

    mounted = Starlette(routes=[Route("/", inner)])
    install(mounted)
    exchange = run(get(TaskGroupMiddleware(outer), log=log))
    assert (log, exchange.error) == (["child", "start 200", "body own"], None)
