"""Partial results: children whose errors are results do not fail their request."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from quattro_web import TaskGroup, install, request_task_group
from quattro_web.fastapi import ConcurrencyLimit, Deadline, RequestTaskGroup
from tests.support.asgi import get, run


async def ask(name: str) -> str:
    await asyncio.sleep(1)
    if name == "unknown":
        raise HTTPException(404, "no such service")
    if name == "leaves":
        raise SystemExit(3)
    if name == "cancelled":
        raise asyncio.CancelledError
    return name


async def answers(tg: TaskGroup, names: str, kind: str) -> list[str]:
    each = names.split(",")
    results: object

    async def ask_in_a_task(name: str) -> str:
        return await tg.create_task(ask(name))

    if kind == "gather":
        results = await tg.gather(*[ask(name) for name in each], return_exceptions=True)
    elif kind == "given":
        tasks = [tg.create_task(ask(name)) for name in each]
        results = await tg.gather(*tasks, return_exceptions=True)
    elif kind == "awaited":
        results = await tg.map(ask_in_a_task, each, limit=2, return_exceptions=True)
    else:
        results = await tg.map(ask, each, limit=2, return_exceptions=True)
    assert isinstance(results, tuple | list)
    return [
        type(result).__name__ if isinstance(result, Exception) else result for result in results
    ]


async def endpoint(request: Request) -> JSONResponse:
    tg = request_task_group(request)
    return JSONResponse(await answers(tg, **dict(request.query_params)))


def apps() -> list[FastAPI | Starlette]:
    fast = FastAPI()

    @fast.get("/")
    async def handler(names: str, kind: str, tg: RequestTaskGroup) -> list[str]:
        return await answers(tg, names, kind)

    @fast.get("/limited", dependencies=[ConcurrencyLimit(1)])
    async def limited(names: str, kind: str, tg: RequestTaskGroup) -> list[str]:
        return await answers(tg, names, kind)

    made = [fast, Starlette(routes=[Route("/", endpoint), Route("/limited", endpoint)])]
    for app in made:
        install(app)
    return made


KINDS = pytest.mark.parametrize("kind", ["gather", "given", "awaited", "map"])


@pytest.mark.parametrize("path", ["/", "/limited"])
@KINDS
def test_an_http_exception_is_a_result(kind: str, path: str) -> None:
    """C12, R4: The `HTTPException` of a child is a result, and not the response; so is that a
    child was cancelled by what it awaits."""
    for app in apps():
        exchange = run(get(app, f"{path}?names=a,unknown,cancelled,b&kind={kind}"))
        assert (exchange.status, exchange.error) == (200, None)
        assert json.loads(exchange.body) == ["a", "HTTPException", "RuntimeError", "b"]


@KINDS
def test_sys_exit_is_a_failure(kind: str) -> None:
    """C12, R4: `sys.exit()` in a child is no result: it is the 500 that it always is."""
    for app in apps():
        assert run(get(app, f"/?names=a,leaves&kind={kind}")).status == 500


@KINDS
def test_a_deadline_leaves_no_partial_results(kind: str) -> None:
    """C12, R8: A deadline cancels the handler, and its children end before the session closes."""
    log: list[str] = []
    app = FastAPI()
    install(app)

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            log.append("session closed")

    async def slow(_: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            log.append("child ended")

    @app.get("/", dependencies=[Deadline(5)])
    async def handler(tg: RequestTaskGroup, _: Annotated[None, Depends(session)]) -> None:
        if kind == "gather":
            await tg.gather(slow(1), ask("unknown"), return_exceptions=True)
        elif kind == "given":
            tasks = tg.create_task(slow(1)), tg.create_task(ask("unknown"))
            await tg.gather(*tasks, return_exceptions=True)
        elif kind == "awaited":

            async def slow_in_a_task(_: int) -> None:
                await tg.create_task(slow(1))

            await tg.map(slow_in_a_task, [1], limit=1, return_exceptions=True)
        else:
            await tg.map(slow, [1], limit=1, return_exceptions=True)
        log.append("never")

    assert run(get(app)).status == 504
    assert log == ["child ended", "session closed"]
