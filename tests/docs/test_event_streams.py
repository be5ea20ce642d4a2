"""Event streams of FastAPI and sse-starlette that fail, as docs/streams.md says."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from sse_starlette.sse import EventSourceResponse as TheirResponse

from quattro_web import install
from quattro_web.fastapi import RequestTaskGroup
from tests.docs.serving import run
from tests.support.asgi import Exchange, get
from tests.support.limitations import Limitation

sse = pytest.importorskip("fastapi.sse", reason="a FastAPI without event streams of its own")


async def fail() -> None:
    await asyncio.sleep(1)
    raise ZeroDivisionError


def ask(app: FastAPI, path: str) -> Exchange:
    async def main() -> Exchange:
        return await get(app, path)

    return run(main)


def app_with(*, installed: bool = True) -> FastAPI:
    """Return an app with event streams that fail in all kinds of ways."""
    app = FastAPI()
    if installed:
        install(app)

    @app.get("/generator", response_class=sse.EventSourceResponse)
    async def generator() -> AsyncIterator[dict[str, int]]:
        yield {"number": 1}
        await fail()

    @app.get("/grouped", response_class=sse.EventSourceResponse)
    async def grouped(tg: RequestTaskGroup) -> AsyncIterator[dict[str, int]]:
        yield {"number": 1}
        await fail()

    @app.get("/at-once", response_class=sse.EventSourceResponse)
    async def at_once(tg: RequestTaskGroup) -> AsyncIterator[dict[str, int]]:
        raise ZeroDivisionError
        yield  # pragma: no cover - makes it a generator

    @app.get("/child", response_class=sse.EventSourceResponse)
    async def child(tg: RequestTaskGroup) -> AsyncIterator[dict[str, int]]:
        tg.create_background_task(fail())
        yield {"number": 1}
        await asyncio.Event().wait()

    @app.get("/theirs")
    async def theirs() -> Any:
        async def numbers() -> AsyncIterator[dict[str, int]]:
            yield {"data": 1}
            await fail()

        return TheirResponse(numbers())

    return app


def test_generator_of_fastapis(limitation: Limitation) -> None:
    """R5: An event stream of FastAPI's whose generator raises is cut, with its group in use and
    without; FastAPI alone ends it as a complete one."""
    bare = ask(app_with(installed=False), "/generator")
    assert isinstance(bare.error, ExceptionGroup)
    what = "ends an event stream whose generator has raised as a complete one"
    limitation("fastapi", what, remains=bare.log[-2].rstrip() == "body")
    for path in ("/generator", "/grouped"):
        exchange = ask(app_with(), path)
        assert exchange.error is not None
        assert exchange.log[-2].startswith("chunk")


def test_generator_that_fails_at_once() -> None:
    """R4: A generator that fails before its first event, and has its group, is answered."""
    assert ask(app_with(), "/at-once").status == 500


def test_child() -> None:
    """R5: A child that fails cuts an event stream of FastAPI's."""
    exchange = ask(app_with(), "/child")
    assert isinstance(exchange.error, ZeroDivisionError)
    assert exchange.log[-2].startswith("chunk")


@pytest.mark.parametrize("installed", [False, True])
def test_generator_of_sse_starlettes(installed: bool) -> None:
    """An event stream of sse-starlette's whose generator raises is cut."""
    exchange = ask(app_with(installed=installed), "/theirs")
    assert exchange.error is not None
    assert exchange.log[-2].startswith("chunk")
