"""The apps that `benchmarks.web` compares: the same response, made in different ways."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from quattro_web import install, request_task_group
from quattro_web.fastapi import RequestTaskGroup

Endpoint = Callable[..., Awaitable[Any]]
Wrap = Callable[[Starlette], object]

BackgroundTasks: Any = None
if importlib.util.find_spec("asgi_background") is not None:
    BackgroundTasks = importlib.import_module("asgi_background").BackgroundTasks

HELLO = {"hello": "world"}
TEXT = "hello, world"


async def child() -> None:
    await asyncio.sleep(0)


# What is put around an app


class NoMiddleware(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        return await call_next(request)


class EmptyMiddleware:
    """The least that a middleware can cost."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def watching(app: Starlette) -> None:
    install(app, cancel_on_disconnect=True)


def no_middleware(app: Starlette) -> None:
    app.add_middleware(NoMiddleware)


def empty_middleware(app: Starlette) -> None:
    app.add_middleware(EmptyMiddleware)


def asgi_background(app: Starlette) -> None:
    app.add_middleware(importlib.import_module("asgi_background").BackgroundTaskMiddleware)


def fastapi_disconnect(app: Starlette) -> None:
    app.add_middleware(importlib.import_module("fastapi_disconnect").CancelOnDisconnectMiddleware)


# Dependencies


async def nothing() -> None:
    return None


async def group_around() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


async def background_tasks(request: Request) -> Any:
    return BackgroundTasks(request.scope)


# Endpoints that spawn nothing


async def fast_hello() -> dict[str, str]:
    return HELLO


async def fast_plain(_: Annotated[None, Depends(nothing)]) -> dict[str, str]:
    return HELLO


async def fast_around(_: Annotated[asyncio.TaskGroup, Depends(group_around)]) -> dict[str, str]:
    return HELLO


async def star_hello(_: Request) -> Response:
    return PlainTextResponse(TEXT)


# Endpoints that spawn; those of FastAPI have one dependency each


async def by_hand(count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(child())


def fast_by_hand(count: int) -> Endpoint:
    async def endpoint(_: Annotated[None, Depends(nothing)]) -> dict[str, str]:
        await by_hand(count)
        return HELLO

    return endpoint


def fast_ours(count: int) -> Endpoint:
    async def endpoint(group: RequestTaskGroup) -> dict[str, str]:
        for _ in range(count):
            group.create_task(child())
        return HELLO

    return endpoint


def fast_yield(count: int) -> Endpoint:
    async def endpoint(
        group: Annotated[asyncio.TaskGroup, Depends(group_around)],
    ) -> dict[str, str]:
        for _ in range(count):
            group.create_task(child())
        return HELLO

    return endpoint


def fast_background(count: int) -> Endpoint:
    async def endpoint(tasks: Annotated[Any, Depends(background_tasks)]) -> dict[str, str]:
        for _ in range(count):
            await tasks.add_task(child)
        return HELLO

    return endpoint


def star_by_hand(count: int) -> Endpoint:
    async def endpoint(_: Request) -> Response:
        await by_hand(count)
        return PlainTextResponse(TEXT)

    return endpoint


def star_ours(count: int) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        group = request_task_group(request)
        for _ in range(count):
            group.create_task(child())
        return PlainTextResponse(TEXT)

    return endpoint


def star_background(count: int) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        tasks = await background_tasks(request)
        for _ in range(count):
            await tasks.add_task(child)
        return PlainTextResponse(TEXT)

    return endpoint
