"""`map` and `gather` in requests: what a failure answers, wherever the results are consumed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from quattro_web import install
from quattro_web.fastapi import RequestTaskGroup
from tests.support.asgi import Exchange, get, run


def app_of(handler: Callable[..., Any]) -> FastAPI:
    app = FastAPI()
    install(app)
    app.get("/", response_model=None)(handler)
    return app


def fail_at(failing: int | None) -> Callable[[int], Coroutine[Any, Any, int]]:
    async def call(number: int) -> int:
        await asyncio.sleep(0.01)  # the headers of a stream leave by themselves after 0.05
        if number == failing:
            raise HTTPException(404, "no such number")
        return number

    return call


def streaming(failing: int | None) -> FastAPI:
    async def handler(tg: RequestTaskGroup) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            async for number in tg.map(fail_at(failing), range(4), limit=1):
                yield str(number)

        return StreamingResponse(chunks())

    return app_of(handler)


def listing(failing: int | None) -> FastAPI:
    async def handler(tg: RequestTaskGroup) -> list[int]:
        return [n async for n in tg.map(fail_at(failing), range(4), limit=2, ordered=True)]

    return app_of(handler)


def gathering(failing: int | None) -> FastAPI:
    async def handler(tg: RequestTaskGroup) -> tuple[int, ...]:
        return await tg.gather(*map(fail_at(failing), range(4)))

    return app_of(handler)


@pytest.mark.parametrize("app", [listing, gathering])
def test_answer(app: Callable[[int | None], FastAPI]) -> None:
    """R2: A handler answers with what its calls return, and nothing of it is alive afterwards."""
    exchange: Exchange = run(get(app(None)))
    assert exchange.body == b"[0,1,2,3]"


def test_stream() -> None:
    """R2: A stream over a map leaves as the results come, to its end."""
    exchange: Exchange = run(get(streaming(None)))
    assert exchange.body == b"0123"
    assert exchange.is_complete


@pytest.mark.parametrize("app", [listing, gathering, streaming])
def test_failure(app: Callable[[int | None], FastAPI]) -> None:
    """R4: A call that fails is answered as if the handler had, and no other error stands by it."""
    exchange: Exchange = run(get(app(0)))
    assert (exchange.status, exchange.body) == (404, b'{"detail":"no such number"}')


def test_failure_within_a_stream() -> None:
    """R5: A call that fails when chunks have left cuts the connection."""
    exchange: Exchange = run(get(streaming(2)))
    assert exchange.body == b"01"
    assert not exchange.is_complete


@pytest.mark.parametrize("ordered", [False, True])
def test_call_that_comes_to_the_end_of_something_else(ordered: bool) -> None:
    """R4: A StopAsyncIteration that a call lets out, as `anext` raises it, is a failure, and not
    the end of the results."""

    async def nothing() -> AsyncIterator[int]:
        return
        yield

    async def call(_: int) -> int:
        return await anext(nothing())

    async def handler(tg: RequestTaskGroup) -> list[int]:
        return [number async for number in tg.map(call, range(4), limit=1, ordered=ordered)]

    exchange = run(get(app_of(handler)))
    assert (exchange.status, type(exchange.error)) == (500, StopAsyncIteration)
