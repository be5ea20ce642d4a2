"""The clean-up of the body of a stream that has seen the end of what it waits for."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quattro_core import TaskGroup
from quattro_web import (
    DeadlineExceededError,
    TaskGroupMiddleware,
    cancel_on_disconnect,
    install,
    request_task_group,
    set_deadline,
)
from quattro_web._util.scope import REQUEST
from tests.support.asgi import Exchange, run


async def work(_: object = None) -> None:
    await asyncio.sleep(3600)


async def fail() -> None:
    await asyncio.sleep(1)
    raise ZeroDivisionError


async def child(tg: TaskGroup) -> None:
    await tg.create_task(work())


async def gather(tg: TaskGroup) -> None:
    await tg.gather(work(), work())


async def gather_of_asyncio(tg: TaskGroup) -> None:
    await asyncio.gather(tg.create_task(work()), tg.create_task(work()))


async def map_of_group(tg: TaskGroup) -> None:
    async for _ in tg.map(work, range(9), limit=2):
        raise AssertionError


async def wait_for(tg: TaskGroup) -> None:
    await asyncio.wait_for(tg.create_task(work()), 7200)


async def shield(tg: TaskGroup) -> None:
    await asyncio.shield(tg.create_task(work()))


async def wait_for_any(tg: TaskGroup) -> None:
    [task], _ = await asyncio.wait({tg.create_task(work())})
    task.result()


async def wait_with_timeout(tg: TaskGroup) -> None:
    await asyncio.wait({tg.create_task(work())}, timeout=7200)


async def as_completed(tg: TaskGroup) -> None:
    for each in asyncio.as_completed([tg.create_task(work())]):
        await each


async def inner_group(tg: TaskGroup) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(child(tg))


async def inner_group_of_ours(tg: TaskGroup) -> None:
    async with TaskGroup() as inner:
        inner.create_task(child(tg))


async def inner_group_of_anyio(tg: TaskGroup) -> None:
    async with anyio.create_task_group() as inner:
        inner.start_soon(child, tg)


async def another_task(tg: TaskGroup) -> None:
    await asyncio.create_task(child(tg))


WAYS = [
    child,
    gather,
    gather_of_asyncio,
    map_of_group,
    wait_for,
    shield,
    wait_for_any,
    wait_with_timeout,
    as_completed,
    inner_group,
    inner_group_of_ours,
    inner_group_of_anyio,
    another_task,
]


Wait = Callable[[TaskGroup], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("why", ["failure", "deadline", "disconnect", "shutdown"])
@pytest.mark.parametrize("wait", WAYS)
def test_body_that_waits_for_children(
    wait: Wait, why: str, is_watched: bool, make: type[Starlette]
) -> None:
    """R3, R7, R8: The body of a stream that sees that the children for which it waits are cancelled
    cleans up, and is not cancelled a second time meanwhile."""
    log: list[str] = []

    async def body(request: Request) -> AsyncIterator[bytes]:
        tg = request_task_group(request)
        yield b"begun"
        if why == "failure":
            tg.create_task(fail())
        elif why == "deadline":
            set_deadline(request, 1, stream=1)
        elif why == "disconnect":
            exchange.disconnect_after(1)
        else:
            end = request.scope[REQUEST].cut_off
            asyncio.get_running_loop().call_later(1, end, request)
        try:
            await wait(tg)
            await work()  # a group does not pass on that a child was cancelled
        finally:
            await asyncio.sleep(0.5)
            log.append("cleaned up")

    async def endpoint(request: Request) -> Response:
        if is_watched:
            cancel_on_disconnect(request)
        return StreamingResponse(body(request))

    app = make()
    app.add_route("/", endpoint)
    if isinstance(app, FastAPI):
        app.get("/fastapi")(endpoint)
    install(app)
    exchange = Exchange(app, "/fastapi" if make is FastAPI else "/")
    run(exchange.run())
    assert log == ["cleaned up"]
    assert not exchange.is_complete


BEGIN = ["start 200", "chunk one", "chunk two"]


def cut(chunks: AsyncIterator[str], log: list[str], *, around: Any = None) -> str:
    """Cut a stream at its second chunk, and return the last that is logged."""

    class Busy(Exchange):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message.get("body") == b"two":
                await asyncio.Event().wait()

    async def endpoint(request: Request) -> Response:
        set_deadline(request, 1, stream=1)
        return StreamingResponse(chunks)

    app = Starlette(routes=[Route("/", endpoint)])
    install(app)
    # With this version Starlette sends a stream in the task of the request.
    asgi = {"version": "3.0", "spec_version": "2.4"}
    run(Busy(around(app) if around else app, asgi=asgi, log=log).run())
    return log[-1]


def test_generator_that_is_found_in_a_closure() -> None:
    """R3: A generator from which that of the body takes its chunks is closed with it, though it
    stands in the function around it, with the body itself and what is not set yet."""
    log: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            await asyncio.sleep(1)
            log.append("source closed")

    async def chunks() -> AsyncIterator[str]:
        try:
            yield await anext(pieces)
            yield await anext(pieces)
        finally:
            log.append("body closed")
        raise AssertionError(body, end)

    pieces = source()
    body = chunks()
    end = cut(body, log)
    assert log == [*BEGIN, "body closed", "source closed", "raised DeadlineExceededError"]


def test_body_that_fails_as_it_is_closed(errors: list[logging.LogRecord]) -> None:
    """R3, R5: The body of a stream that fails in its clean-up is logged, and what it takes its
    chunks from is closed all the same."""
    log: list[str] = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            log.append("source closed")

    async def chunks() -> AsyncIterator[str]:
        try:
            async for chunk in source():
                yield chunk
        finally:
            raise ZeroDivisionError

    cut(chunks(), log)
    assert log == [*BEGIN, "source closed", "raised DeadlineExceededError"]
    closing = [record for record in errors if "failed as it was closed" in record.getMessage()]
    assert [record.exc_info and record.exc_info[0] for record in closing] == [ZeroDivisionError]


def test_body_that_sends_by_itself(errors: list[logging.LogRecord]) -> None:
    """R5: A generator that is running, since it sends by itself, is not closed from outside: it
    sees its cancellation. What it takes its chunks from is closed."""
    log: list[str] = []

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"one"
        finally:
            log.append("source closed")

    class Sending:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            set_deadline(scope, 1, stream=1)
            self.body_iterator = self.pieces(send)
            async for _ in self.body_iterator:
                raise AssertionError

        async def pieces(self, send: Send) -> AsyncIterator[None]:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                async for piece in source():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                yield
            finally:
                log.append("body ends")

    async def slow(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    run(Exchange(TaskGroupMiddleware(Sending()), on_send=slow, log=log).run())
    ends = ["source closed", "body ends", "raised DeadlineExceededError"]
    assert log == ["start 200", "chunk one", *ends]
    assert not [record for record in errors if record.exc_info]


def test_body_of_somebody_around_the_app() -> None:
    """R10: A body that an app around this one may send instead is not closed with that of a stream
    that is cut."""
    log: list[str] = []

    class Fallback:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app
            self.body_iterator = self.pieces()

        async def pieces(self) -> AsyncIterator[str]:
            yield "instead"

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            with suppress(DeadlineExceededError):
                await self.app(scope, receive, send)
            async for piece in self.body_iterator:
                log.append(piece)

    async def chunks() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    cut(chunks(), log, around=Fallback)
    assert log == [*BEGIN, "instead"]
