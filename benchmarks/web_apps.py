"""The apps that `benchmarks.web` compares: the same response, made in different ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from quattro_web import install, request_task_group
from quattro_web.fastapi import RequestTaskGroup

CHILDREN = 10


async def child() -> None:
    await asyncio.sleep(0)


class NoMiddleware(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        return await call_next(request)


async def nothing() -> None:
    return None


async def group_around() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


async def fast_hello() -> dict[str, str]:
    return {"hello": "world"}


async def fast_hello_dependency(_: Annotated[None, Depends(nothing)]) -> dict[str, str]:
    return {"hello": "world"}


async def fast_hello_yield(
    _: Annotated[asyncio.TaskGroup, Depends(group_around)],
) -> dict[str, str]:
    return {"hello": "world"}


async def fast_by_hand(_: Annotated[None, Depends(nothing)]) -> dict[str, str]:
    async with asyncio.TaskGroup() as group:
        for _i in range(CHILDREN):
            group.create_task(child())
    return {"hello": "world"}


async def fast_ours(group: RequestTaskGroup) -> dict[str, str]:
    for _i in range(CHILDREN):
        group.create_task(child())
    return {"hello": "world"}


async def fast_yield(
    group: Annotated[asyncio.TaskGroup, Depends(group_around)],
) -> dict[str, str]:
    for _i in range(CHILDREN):
        group.create_task(child())
    return {"hello": "world"}


async def star_hello(_: Request) -> Response:
    return PlainTextResponse("hello, world")


async def star_by_hand(_: Request) -> Response:
    async with asyncio.TaskGroup() as group:
        for _i in range(CHILDREN):
            group.create_task(child())
    return PlainTextResponse("hello, world")


async def star_ours(request: Request) -> Response:
    group = request_task_group(request)
    for _i in range(CHILDREN):
        group.create_task(child())
    return PlainTextResponse("hello, world")


def fast(
    endpoint: Callable[..., object], *, ours: bool = False, base: bool = False, watch: bool = False
) -> ASGIApp:
    app = FastAPI()
    app.get("/")(endpoint)
    _add(app, ours=ours, base=base, watch=watch)
    return app


def star(
    endpoint: Callable[[Request], Awaitable[Response]],
    *,
    ours: bool = False,
    base: bool = False,
    watch: bool = False,
) -> ASGIApp:
    app = Starlette(routes=[Route("/", endpoint)])
    _add(app, ours=ours, base=base, watch=watch)
    return app


def _add(app: Starlette, *, ours: bool, base: bool, watch: bool) -> None:
    if ours or watch:
        install(app, cancel_on_disconnect=watch)
    if base:
        app.add_middleware(NoMiddleware)


@dataclass(frozen=True)
class Variant:
    """An app, and what it is measured against."""

    name: str
    make: Callable[[], ASGIApp]
    baseline: str
    goal: float | None = None  # of the ratio


BARE_FAST, BARE_STAR = "FastAPI, bare", "Starlette, bare"
HAND_FAST, HAND_STAR = "FastAPI, 10 by hand", "Starlette, 10 by hand"

VARIANTS = (
    Variant(BARE_FAST, lambda: fast(fast_hello), BARE_FAST),
    Variant("FastAPI, ours, unused", lambda: fast(fast_hello, ours=True), BARE_FAST, 1.02),
    Variant("FastAPI, ours, watching, unused", lambda: fast(fast_hello, watch=True), BARE_FAST),
    Variant("FastAPI, plain dependency", lambda: fast(fast_hello_dependency), BARE_FAST),
    Variant("FastAPI, yield dependency", lambda: fast(fast_hello_yield), BARE_FAST),
    Variant("FastAPI, BaseHTTPMiddleware", lambda: fast(fast_hello, base=True), BARE_FAST),
    Variant(BARE_STAR, lambda: star(star_hello), BARE_STAR),
    Variant("Starlette, ours, unused", lambda: star(star_hello, ours=True), BARE_STAR, 1.03),
    Variant("Starlette, BaseHTTPMiddleware", lambda: star(star_hello, base=True), BARE_STAR),
    Variant(HAND_FAST, lambda: fast(fast_by_hand), HAND_FAST),
    Variant("FastAPI, 10 in ours", lambda: fast(fast_ours, ours=True), HAND_FAST, 1.03),
    Variant("FastAPI, 10 in ours, watching", lambda: fast(fast_ours, watch=True), HAND_FAST, 1.05),
    Variant("FastAPI, 10 in a yield dependency", lambda: fast(fast_yield), HAND_FAST),
    Variant(HAND_STAR, lambda: star(star_by_hand), HAND_STAR),
    Variant("Starlette, 10 in ours", lambda: star(star_ours, ours=True), HAND_STAR, 1.03),
    Variant(
        "Starlette, 10 in ours, watching", lambda: star(star_ours, watch=True), HAND_STAR, 1.05
    ),
)
